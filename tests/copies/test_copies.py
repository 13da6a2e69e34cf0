"""Copies of a process that has imported code behave as the command does."""

from __future__ import annotations

import os
import select
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.copies.copy import Copy, Order, begin

PROBE = """
import json, os, sys, time
print(json.dumps([sys.argv[1:], os.getcwd(), os.environ["PROBE"], os.getsid(0) == os.getpid(), __name__]), flush=True)
print("oh", file=sys.stderr)
if "wait" in sys.argv:
    time.sleep(1000)
if "interrupted" in sys.argv:
    raise KeyboardInterrupt
sys.exit("in words" if "words" in sys.argv else 3)
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Copy]:
    (tmp_path / "probe.py").write_text(PROBE)

    def run(*arguments: str, session: bool = False, tied: bool = False) -> Copy:
        order = Order("probe", list(arguments), str(tmp_path), {**os.environ, "PROBE": "own"}, session, tied)
        with open(tmp_path / "out", "w") as output, open(tmp_path / "err", "w") as errors:
            return begin(order, output, errors)

    return run


@pytest.mark.parametrize("session", [False, True])
def test_it_runs_as_the_command_would(start: Callable[..., Copy], tmp_path: Path, session: bool) -> None:
    assert start("a", "b c", session=session).wait(60) == 3
    said = f'[["a", "b c"], "{tmp_path}", "own", {str(session).lower()}, "__main__"]\n'
    assert ((tmp_path / "out").read_text(), (tmp_path / "err").read_text()) == (said, "oh\n")


def test_it_is_watched_and_killed_as_a_process_is(start: Callable[..., Copy]) -> None:
    process = start("wait")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    assert process.poll() is None
    assert b"probe\0wait" in Path(f"/proc/{process.pid}/cmdline").read_bytes().replace(b" ", b"\0")
    process.kill()
    assert process.wait(60) == process.poll() == -signal.SIGKILL
    process.terminate()  # nobody else may have its number by now


@pytest.mark.parametrize(
    ("way", "status", "said"), [("words", 1, "in words"), ("interrupted", -2, "KeyboardInterrupt")]
)
def test_it_ends_as_an_interpreter_does(
    start: Callable[..., Copy], tmp_path: Path, way: str, status: int, said: str
) -> None:
    assert start(way).wait(60) == status
    assert (tmp_path / "err").read_text().splitlines()[-1] == said


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_tied_ends_with_the_one_that_ordered_it(start: Callable[..., Copy], tied: bool) -> None:
    order = start("wait", tied=tied)
    ended = os.pidfd_open(order.pid)
    order.hang_up()
    assert bool(select.select([ended], [], [], 60 if tied else 0.5)[0]) is tied
    if not tied:
        signal.pidfd_send_signal(ended, signal.SIGKILL)
    os.close(ended)
