"""A pool in this process, with stub servers behind real sockets, and plans of small experiments for it."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from emoprobe.config.files import parse_config
from emoprobe.models.source import ModelCard
from emoprobe.results import atomic
from emoprobe.results.layout import Layout
from emoprobe.results.trajectory import Sample, Trajectory
from server.pool.address import PoolAddress, PoolStatus
from server.pool.fleets import Fleets, ServerSlot
from server.pool.launcher import Exit, Launcher
from server.pool.pool import Pool
from server.pool.protocol import JOBS, STATUS, Caller, encode_remaining
from server.pool.served import ServedModel
from server.pool.turns import Turns
from tests import byte_tokenizer
from tests.stub_server import Stub

SECONDS = 120.0  # how long anything may take before a test fails; nothing is measured by it
LINGER = 0.05
VARIANTS = {"control": {}, "calm": {"text": "It is a quiet day."}}


class GatedStub(Stub):
    """A stub that can hold its answers back."""

    def __init__(self, model: str) -> None:
        super().__init__(model=model)
        self.gate = asyncio.Event()
        self.gate.set()

    async def complete(self, send: Any, request: dict[str, Any], text: str) -> None:
        await self.gate.wait()
        await super().complete(send, request, text)


class _Server(uvicorn.Server):
    """Many of them live in one process, whose signals are not theirs."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class StubLauncher(Launcher):
    """Starts a stub in this process, and keeps a diary of it."""

    foreign = False

    def __init__(self, house: House, kind: str, model: str) -> None:
        self._house, self._kind, self._model = house, kind, model
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> str:
        self._house.diary.append(f"start {self._kind} {self._model}")
        self._house.standing[self._kind] += 1
        self._house.most[self._kind] = max(self._house.most[self._kind], self._house.standing[self._kind])
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        config = uvicorn.Config(self._house.stub(self._model), log_level="critical", access_log=False, lifespan="off")
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    def exited(self) -> Exit | None:
        return Exit("broken", again=False) if self._model in self._house.broken else None

    async def wait(self) -> Exit:
        await asyncio.Event().wait()
        raise AssertionError

    async def stop(self) -> None:
        if self._server is None or self._task is None:
            return
        self._server.should_exit = self._server.force_exit = True
        await asyncio.shield(self._task)
        self._server = None
        self._house.standing[self._kind] -= 1
        self._house.diary.append(f"stop {self._kind} {self._model}")

    def log_lines(self, count: int) -> list[str]:
        return ["INFO 11-22 12:01:34 [runner.py:68] Starting to load model"]

    def log_name(self) -> str:
        return "the stub's log"


class House:
    """A plan of experiments in a folder, and the pool that serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results, self.plan = folder, folder / "results", folder / "plan"
        self.address = folder / "run" / "pool.address"
        self.plan.mkdir()
        self.diary: list[str] = []
        self.standing: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.broken: set[str] = set()
        self.fleets: Fleets
        self._stubs: dict[str, GatedStub] = {}
        self.owner = subprocess.Popen(["sleep", "1000"])

    def close(self) -> None:
        self.owner.kill()
        self.owner.wait()

    def add(self, name: str, model: str = "a", samples: int = 4, **sections: Any) -> Layout:
        """Put an experiment into the plan, with its model and samples made."""
        values: dict[str, Any] = {
            "experiment": {"name": name},
            "model": {"source": model},
            "dataset": {"samples": samples},
            "variants": VARIANTS,
            "capture": {"enabled": False},
            **sections,
        }
        config = parse_config(values)
        atomic.write_json(self.plan / f"{name}.json", config.resolved())
        layout = self.layout(name)
        directory = self.folder / "models" / model.replace("/", "_")
        byte_tokenizer.write(directory)
        atomic.write_json(layout.model, ModelCard(model, str(directory), None, f"hash of {model}", 64).to_json())
        for index in range(samples):
            sample = Sample(
                sample_id=f"gsm8k_{index + 1:04d}", index=index, question=f"{index} + 1?", answer="3", source={}
            )
            sample.write(layout.sample(sample.sample_id))
        return layout

    def add_judge(self, name: str, judge: str, model: str) -> None:
        """Prepare the model of a judge that the run serves."""
        directory = self.folder / "models" / model
        byte_tokenizer.write(directory)
        card = ModelCard(model, str(directory), None, f"hash of {model}", 64).to_json()
        atomic.write_json(self.layout(name).judge_model(judge), card)

    def layout(self, name: str) -> Layout:
        """Where an experiment's files lie."""
        return Layout.of(name, self.results)

    def stub(self, model: str) -> GatedStub:
        """The stub that answers for a model, however often it is started."""
        if model not in self._stubs:
            self._stubs[model] = GatedStub(model)
        return self._stubs[model]

    def launcher(self, experiment: ServedModel, place: ServerSlot) -> Launcher:
        return StubLauncher(self, place.kind, experiment.model_name)

    @asynccontextmanager
    async def pool(
        self, longest: float = 3600.0, linger: float = LINGER, keep_alive: float = 0.0
    ) -> AsyncIterator[None]:
        """The pool while it serves."""
        self.fleets = Fleets(self.launcher, lambda: Turns(linger, longest))
        pool = Pool(self.address, self.fleets, keep_alive)
        serving = asyncio.create_task(pool.serve(self.owner.pid))
        try:
            await until(lambda: PoolAddress.read(self.address) is not None)
            yield
        finally:
            for stub in self._stubs.values():
                stub.gate.set()
            pool.close()
            await asyncio.wait_for(serving, SECONDS)
            assert not any(self.standing.values()), "a server was left behind"

    async def connect(self, what: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect as a client does."""
        address = PoolAddress.read(self.address)
        assert address is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", address.port)
        writer.write(f"{address.token}\t{what}\n".encode())
        return reader, writer

    async def ask(self, kind: str, experiment: str, variant: str, sample: str) -> str:
        """Ask for one job; return why it failed, `ok` where it did not."""
        words = [experiment, variant, sample]
        if kind in ("steer", "score"):
            condition, _, variant = variant.rpartition("/")
            words = [experiment, condition, variant, sample]
        return await self.send([kind, *words])

    async def send(self, words: list[str]) -> str:
        """Ask for a job by its words, which may be wrong."""
        reader, writer = await self.connect(JOBS)
        caller = [str(self.plan), str(self.results), str(self.folder), self.owner.pid]
        writer.write(f"{json.dumps([1, caller, words])}\n".encode())
        try:
            _, reason = json.loads(await asyncio.wait_for(reader.readline(), SECONDS))
        finally:
            writer.close()
        return str(reason) or "ok\n"

    async def remain(self, *kinds: str, directory: Path | None = None) -> None:
        """Tell which kinds of jobs remain, and wait until the pool has read it.

        Args:
            kinds: of jobs.
            directory: of another run.
        """
        reader, writer = await self.connect(JOBS)
        caller = Caller(str(self.plan), str(self.results), str(directory or self.folder), self.owner.pid)
        # The pool answers a request for an unknown job at once, after what came before it.
        writer.write(f"{encode_remaining(caller, kinds)}{json.dumps([1, ['', '', '', 1], []])}\n".encode())
        await asyncio.wait_for(reader.readline(), SECONDS)
        writer.close()

    async def status(self) -> PoolStatus:
        reader, writer = await self.connect(STATUS)
        found: PoolStatus = json.loads(await reader.read())
        writer.close()
        return found


def trajectory(layout: Layout, variant: str, sample: str) -> Trajectory:
    return Trajectory.read(layout.pair(variant, sample))


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(SECONDS):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)
