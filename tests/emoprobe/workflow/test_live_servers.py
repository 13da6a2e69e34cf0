"""The table of servers below the bars."""

import io
import logging
import threading
from typing import Any

import pytest
from rich.console import Console
from rich.live import Live

from emoprobe.workflow.live_servers import LiveServers, show_servers

STARTING = {
    "name": "vllm-0", "phase": "starting for 12 s, loading the model", "log_line": "Loading weights", "in_flight": 0,
}  # fmt: skip
AT_WORK = {"name": "nnsight-0", "phase": "at work", "log_line": "", "in_flight": 3}


def status(*fleets: dict[str, Any]) -> dict[str, Any]:
    return {"pid": 1, "fleets": list(fleets)}


def fleet(worker: dict[str, Any], standing: bool = True) -> dict[str, Any]:
    return {"model": "smollm2", "standing": standing, "workers": [worker]}


def drawn(servers: LiveServers) -> list[str]:
    servers.look()
    console = Console(file=io.StringIO(), width=160)
    with console.capture() as capture:
        console.print(servers)
    return [" ".join(line.split()) for line in capture.get().splitlines() if line.strip()]


def test_it_says_what_each_server_does() -> None:
    assert drawn(LiveServers(lambda: status(fleet(STARTING), fleet(AT_WORK)))) == [
        "vllm-0 smollm2 starting for 12 s, loading the model Loading weights",
        "nnsight-0 smollm2 at work 3 in flight",
    ]


def test_models_that_wait_for_their_turn_are_left_out() -> None:
    assert drawn(LiveServers(lambda: status(fleet(STARTING, standing=False)))) == []


def test_nothing_is_shown_where_no_pool_answers() -> None:
    assert drawn(LiveServers(lambda: None)) == []


def test_it_joins_the_bars_and_leaves_other_handlers_alone() -> None:
    class Handler(logging.NullHandler):
        live_display = Live("the bars", console=Console(file=io.StringIO()))

    asked = threading.Event()

    def ask() -> dict[str, Any]:
        asked.set()
        return status(fleet(AT_WORK))

    show_servers([logging.NullHandler(), Handler()], ask)
    assert asked.wait(60)
    console = Console(file=io.StringIO(), width=160)
    with console.capture() as capture:
        console.print(Handler.live_display.get_renderable())
    assert "the bars" in capture.get()


def test_an_error_ends_the_table_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    answers = iter([status(fleet(AT_WORK))])

    def ask() -> dict[str, Any]:
        return next(answers)  # then StopIteration

    caplog.set_level(logging.WARNING, logger="snakemake")
    servers = LiveServers(ask, seconds=0.01)
    servers.follow().join(60)
    assert "The model servers are not shown any more (StopIteration" in caplog.text
    console = Console(file=io.StringIO(), width=160)
    with console.capture() as capture:
        console.print(servers)
    assert capture.get().strip() == ""
