"""Servers that are processes: they die, hang, cannot start, lose their port, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from server.pool.fleet import Fleet, FleetDownError, ServerDemand
from server.pool.launcher import Endpoint
from server.pool.local_process import Command, LocalProcess
from server.pool.server_log import last_line, phase_of
from server.pool.worker import Worker, WorkerLimits
from tests.ports import free_port
from tests.server.pool.house import SECONDS, _Server, until
from tests.stub_server import Stub, reply
from tests.workspace import ROOT

LIMITS = WorkerLimits(requests=4, restarts=1, start_timeout=SECONDS, hang_timeout=0.2, health_interval=0.05)
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


def stub_command(port: int = 0) -> Command:
    port = port or free_port()
    return Command([sys.executable, "-m", "tests.stub_server", str(port)], ENV, [], port)


def script(code: str) -> Callable[[], Command]:
    """A server that is only this program."""
    return lambda: Command([sys.executable, "-c", code], ENV, [], free_port())


def fleet_of(folder: Path, make: Callable[[], Command], limits: WorkerLimits = LIMITS) -> tuple[Fleet, Worker]:
    fleet = Fleet("vllm", "stub", 3, None)
    worker = Worker("vllm-0", "stub", None, limits, LocalProcess("vllm-0", make, folder / "vllm-0.log"), fleet.changed)
    fleet.workers.append(worker)
    return fleet, worker


def question(seed: int = 0) -> ServerDemand:
    body = {"model": "stub", "messages": [{"role": "user", "content": "1 + 1?"}], "seed": seed}
    return ServerDemand(seed, "/v1/chat/completions", body, SECONDS, dict)


def run(fleet: Fleet, scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario; end the fleet whatever comes of it."""

    async def both() -> None:
        try:
            await asyncio.wait_for(scenario, SECONDS)
        finally:
            await fleet.stop()

    asyncio.run(both())


def process_of(worker: Worker) -> int:
    """The process number of a local server."""
    launcher = worker.launcher
    assert isinstance(launcher, LocalProcess)
    assert launcher.process_id is not None
    return launcher.process_id


def is_gone(process: int) -> bool:
    return not Path(f"/proc/{process}").exists()


def test_a_server_answers_and_is_ended(tmp_path: Path) -> None:
    fleet, worker = fleet_of(tmp_path, stub_command)
    processes = []

    async def scenario() -> None:
        answer, delivery = await fleet.deliver(question())
        assert answer["choices"]
        assert [(attempt.worker, attempt.error) for attempt in delivery.attempts] == [("vllm-0", None)]
        processes.append(process_of(worker))

    run(fleet, scenario())
    assert is_gone(processes[0])
    assert worker.state == "waiting"


def test_a_fleet_stands_again_after_it_was_stopped(tmp_path: Path) -> None:
    fleet, worker = fleet_of(tmp_path, stub_command)

    async def scenario() -> None:
        await fleet.deliver(question())
        first = process_of(worker)
        await fleet.stop()
        assert is_gone(first)
        await fleet.deliver(question(1))
        assert process_of(worker) != first
        assert (worker.served, worker.restarts) == (2, 0)

    run(fleet, scenario())


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_dies_or_hangs_is_started_again(tmp_path: Path, number: signal.Signals) -> None:
    fleet, worker = fleet_of(tmp_path, stub_command)

    async def scenario() -> None:
        await fleet.deliver(question())
        first = process_of(worker)
        os.kill(first, number)
        await until(lambda: worker.restarts == 1 and worker.state == "live")
        assert is_gone(first)
        await fleet.deliver(question(1))
        assert worker.error is not None
        assert ("it died (signal SIGKILL)" if number is signal.SIGKILL else "it hangs") in worker.error

    run(fleet, scenario())


def test_a_request_in_flight_is_asked_again_when_its_server_dies(tmp_path: Path) -> None:
    delays = iter(["3600", "0"])  # only the first server never answers

    def slow_at_first() -> Command:
        command = stub_command()
        return Command([*command.line, next(delays)], command.env, [], command.port)

    fleet, worker = fleet_of(tmp_path, slow_at_first)

    async def scenario() -> None:
        asked = asyncio.create_task(fleet.deliver(question()))
        await until(lambda: worker.in_flight == 1)
        os.kill(process_of(worker), signal.SIGKILL)
        _, delivery = await asked
        first, second = delivery.attempts
        assert first.error is not None  # the connection broke, or supervision saw it first
        assert second.error is None

    run(fleet, scenario())


def test_a_server_that_keeps_dying_is_given_up(tmp_path: Path) -> None:
    fleet, worker = fleet_of(tmp_path, script("import os; os.kill(os.getpid(), 9)"))

    async def scenario() -> None:
        with pytest.raises(FleetDownError, match="restarted 1 times, as workers"):
            await fleet.deliver(question())
        assert worker.state == "failed"

    run(fleet, scenario())


def test_a_server_that_cannot_start_is_tried_once_and_its_log_is_told(tmp_path: Path) -> None:
    (tmp_path / "vllm-0.log").write_text("a line of an earlier server\n")
    fleet, worker = fleet_of(tmp_path, script("print('no such weights'); raise SystemExit(3)"))

    async def scenario() -> None:
        with pytest.raises(FleetDownError) as failed:
            await fleet.deliver(question())
        text = str(failed.value)
        assert "it ended while it started (exit status 3)" in text
        assert "no such weights" in text
        assert "earlier server" not in text
        with pytest.raises(FleetDownError):
            await fleet.deliver(question())
        assert worker.restarts == 0

    run(fleet, scenario())


def test_a_port_that_was_lost_is_another_at_the_next_start(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = iter([taken.getsockname()[1]])

        fleet, worker = fleet_of(tmp_path, lambda: stub_command(next(ports, 0)))

        async def scenario() -> None:
            await fleet.deliver(question())
            assert worker.restarts == 1

        run(fleet, scenario())


def test_a_server_of_another_model_is_refused(tmp_path: Path) -> None:
    fleet = Fleet("vllm", "other", 3, None)
    launcher = LocalProcess("vllm-0", stub_command, tmp_path / "vllm-0.log")
    fleet.workers.append(Worker("vllm-0", "other", None, LIMITS, launcher, fleet.changed))

    async def scenario() -> None:
        with pytest.raises(FleetDownError, match="serves stub, not other"):
            await fleet.deliver(question())

    run(fleet, scenario())


def test_an_endpoint_is_neither_started_nor_ended(tmp_path: Path) -> None:
    owner, server = fleet_of(tmp_path, stub_command)

    async def scenario() -> None:
        await owner.deliver(question())
        fleet = Fleet("vllm", "stub", 3, None)
        fleet.workers.append(Worker("endpoint-0", "stub", None, LIMITS, Endpoint(f"{server.url}/v1"), fleet.changed))
        _, delivery = await fleet.deliver(question())
        assert delivery.worker_id == "endpoint-0"
        await fleet.stop()
        await owner.deliver(question())
        assert server.restarts == 0

    run(owner, scenario())


def test_requests_are_spread_over_live_workers_by_their_index(tmp_path: Path) -> None:
    fleet = Fleet("vllm", "stub", 3, None)
    for number in range(2):
        launcher = LocalProcess(f"vllm-{number}", stub_command, tmp_path / f"{number}.log")
        fleet.workers.append(Worker(f"vllm-{number}", "stub", None, LIMITS, launcher, fleet.changed))

    async def scenario() -> None:
        fleet.start()
        await until(lambda: all(worker.state == "live" for worker in fleet.workers))
        names = [(await fleet.deliver(question(index)))[1].worker_id for index in range(4)]
        assert names == ["vllm-0", "vllm-1", "vllm-0", "vllm-1"]

    run(fleet, scenario())


def test_a_log_becomes_a_few_words() -> None:
    lines = [
        "(APIServer pid=11170) INFO 11-22 12:01:14 [model.py:733] Resolved architecture: LlamaForCausalLM",
        "(Worker pid=11340) INFO 11-22 12:01:34 [cpu_model_runner.py:68] Starting to load model /models/x...",
        "",
    ]
    assert phase_of([]) == "loading its libraries"
    assert phase_of(lines[:1]) == "reading the configuration"
    assert phase_of(lines) == "loading the model"
    assert last_line(lines) == "Starting to load model /models/x..."
    assert last_line(["2026-11-22 12:00:00,123 INFO server.app: listening"]) == "server.app: listening"
    assert len(last_line(["word " * 100])) == 100


@pytest.mark.parametrize("status", [503, 429])
def test_a_server_that_lists_its_models_later_is_waited_for(tmp_path: Path, status: int) -> None:
    """As one behind a gateway, which is healthy before the server is."""
    stub, listed = Stub(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"] == "/v1/models":
            listed.append(status)
            if len(listed) == 1:
                await reply(send, status, {"error": "the model is loaded"})
                return
        await stub(scope, receive, send)

    async def scenario() -> None:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_level="critical", access_log=False, lifespan="off")
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        fleet = Fleet("vllm", "stub", 3, None)
        launcher = Endpoint(f"http://127.0.0.1:{listener.getsockname()[1]}")
        fleet.workers.append(Worker("endpoint-0", "stub", None, LIMITS, launcher, fleet.changed))
        try:
            answer, _ = await asyncio.wait_for(fleet.deliver(question()), SECONDS)
            assert answer["id"] == "chatcmpl-stub"
            assert len(listed) == 2
        finally:
            await fleet.stop()
            server.should_exit = server.force_exit = True
            await serving

    asyncio.run(scenario())
