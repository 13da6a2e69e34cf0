"""Threads and tasks whose work raises: whoever waits for them gets an error, and the next request is served."""

from __future__ import annotations

import asyncio
import json
import os
import socketserver
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from server.pool.address import PoolAddress
from server.pool.client import PoolClient
from server.pool.launcher import Launcher
from server.pool.protocol import JOBS, Access, Caller, GenerateJob, encode
from server.pool.slurm.cluster import SlurmCluster
from server.pool.turns import Turns
from server.pool.worker import Worker, WorkerLimits
from tests.server.pool.house import SECONDS, House
from tests.server.pool.instant_pool import InstantPool
from tests.workspace import ROOT


@contextmanager
def nonsense(path: Path) -> Iterator[None]:
    """A pool whose answer is no JSON."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.rfile.readline()
            self.wfile.write(b"nonsense\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        path.parent.mkdir(mode=0o700)
        PoolAddress.new(server.server_address[1]).write(path)
        yield
        server.shutdown()
        thread.join()


class Answers:
    """What a client said of each job."""

    def __init__(self) -> None:
        self._told: dict[int, str] = {}
        self._changed = threading.Condition()

    def __call__(self, number: int, reason: str) -> None:
        with self._changed:
            self._told[number] = reason
            self._changed.notify_all()

    def of(self, number: int) -> str:
        with self._changed:
            assert self._changed.wait_for(lambda: number in self._told, SECONDS)
            return self._told[number]


def test_a_client_that_cannot_read_an_answer_fails_the_job_and_goes_on(tmp_path: Path) -> None:
    path, answers = tmp_path / "run/a.address", Answers()
    caller = Caller("plan", "results", "directory", os.getpid())
    client = PoolClient(Access(path, caller, sys.executable, ROOT), answers)
    with nonsense(path):
        client.ask([(0, GenerateJob("one", "calm", "g_0001"))])
        assert "JSONDecodeError" in answers.of(0)
    pool = InstantPool(path, lambda job, times: "")
    client.ask([(1, GenerateJob("one", "calm", "g_0002"))])
    assert answers.of(1) == ""
    client.close()
    pool.stop()


def test_a_client_sends_paths_that_are_not_utf_8(tmp_path: Path) -> None:
    path, answers = tmp_path / "run/a.address", Answers()
    strange = os.fsdecode(b"/caf\xe9")
    client = PoolClient(Access(path, Caller(strange, strange, strange, os.getpid()), sys.executable, ROOT), answers)
    pool = InstantPool(path, lambda job, times: "no such folder")
    client.ask([(0, GenerateJob("one", "calm", "g_0001"))])
    assert answers.of(0) == "no such folder"
    client.close()
    pool.stop()


@pytest.mark.parametrize("plan", ["a\0b", os.fsdecode(b"/caf\xe9")])
def test_the_pool_answers_a_job_that_it_cannot_begin(house: House, plan: str) -> None:
    house.add("one")

    async def scenario() -> str:
        async with house.pool():
            caller = Caller(plan, str(house.results), str(house.folder), house.owner.pid)
            line = encode(7, caller, GenerateJob("one", "calm", "gsm8k_0001"))
            address = PoolAddress.read(house.address)
            assert address is not None
            reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
            writer.write(f"{address.token}\t{JOBS}\n{line}".encode())
            answer = await asyncio.wait_for(reader.readline(), SECONDS)
            writer.close()
            return answer.decode()

    number, reason = json.loads(asyncio.run(scenario()))
    assert number == 7
    assert reason.strip()


class _Stubborn:
    """Servers that cannot be ended."""

    is_down = False
    kind = "vllm"

    def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        raise RuntimeError("cannot be ended")


def test_requests_get_the_error_of_servers_that_do_not_make_room() -> None:
    async def scenario() -> None:
        turns = Turns(linger=0.0)
        first, second = _Stubborn(), _Stubborn()
        async with turns.hold(first):
            pass
        async with asyncio.timeout(SECONDS):
            with pytest.raises(RuntimeError, match="cannot be ended"):
                async with turns.hold(second):
                    pass
            async with turns.hold(second):
                assert turns.standing is second

    asyncio.run(scenario())


class _Broken(Launcher):
    """A server that cannot be started, and whose log cannot be read."""

    foreign = False

    async def start(self) -> str:
        raise RuntimeError("broken")

    async def stop(self) -> None:
        """Nothing to end."""

    def log_lines(self, count: int) -> list[str]:
        raise RuntimeError("no log")


def test_those_who_wait_for_a_server_learn_of_its_end_whatever_fails_in_it() -> None:
    seen: list[str] = []
    worker = Worker("w", "m", None, WorkerLimits(1, 0, 1.0, 1.0), _Broken(), lambda: seen.append(worker.state))  # type: ignore[abstract]
    with pytest.raises(RuntimeError, match="no log"):
        asyncio.run(worker.supervise())
    assert seen[-1] == "failed"


def test_jobs_of_slurm_are_looked_at_again_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`squeue` disappears, and comes back."""
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    monkeypatch.setenv("PATH", str(bin_folder))

    def put(name: str, script: str) -> None:
        (bin_folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (bin_folder / name).chmod(0o755)

    put("sbatch", "echo 7")
    put("scancel", "exit 0")

    async def scenario() -> None:
        cluster = SlurmCluster(tmp_path, poll=0.01)
        await cluster.open()
        await cluster.submit([], "")
        with pytest.raises(Exception, match="squeue is not on the path"):
            await cluster.look()
        put("squeue", "echo '7|RUNNING|None|node1'")
        async with asyncio.timeout(SECONDS):
            while cluster.state("7") is None:
                await asyncio.sleep(0.01)
        await cluster.close()

    asyncio.run(scenario())
