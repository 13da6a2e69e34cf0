"""Generation and capture on the same GPUs: in turns, or together, but never two servers that start at once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.pool.launch import visible_gpus
from server.pool.turns import Turns
from server.pool.worker import Worker, WorkerLimits
from tests import nvidia_smi
from tests.server.pool.house import SECONDS, House, StubLauncher, until

PAIRS = [(variant, f"gsm8k_{number:04d}") for number in range(1, 5) for variant in ("control", "calm")]


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two GPUs."""
    nvidia_smi.install(tmp_path / "bin", monkeypatch, [24564, 24564])
    yield
    monkeypatch.undo()
    nvidia_smi.forget()


@pytest.mark.usefixtures("gpus")
def test_the_capture_server_starts_when_every_trajectory_is_generated(house: House) -> None:
    for name, model in (("one", "a"), ("two", "b")):
        house.add(name, model, capture={"enabled": True}, workers={"gpu_sharing": "turns"})

    async def scenario() -> list[str]:
        # A turn may last no time where others of its kind wait; captures wait all the same.
        async with house.pool(longest=0.0):
            assert await house.ask("generate", "one", *PAIRS[0]) == "ok\n"
            house.stub("a").gate.clear()
            first = [asyncio.create_task(house.ask("generate", "one", *pair)) for pair in PAIRS[1:]]
            captured = [asyncio.create_task(house.ask("capture", "one", *PAIRS[0]))]
            other = [asyncio.create_task(house.ask("generate", "two", *pair)) for pair in PAIRS]
            house.stub("a").gate.set()
            generated = await asyncio.gather(*first, *other)
            await until(lambda: "start nnsight a" in house.diary)
            for task in captured:
                task.cancel()
            return list(generated)

    assert set(asyncio.run(scenario())) == {"ok\n"}
    kinds = [line.split()[:2] for line in house.diary]
    assert kinds.index(["start", "nnsight"]) > max(at for at, words in enumerate(kinds) if words == ["start", "vllm"])
    assert house.diary.index("stop vllm b") < house.diary.index("start nnsight a")


@pytest.mark.usefixtures("gpus")
def test_together_both_stand(house: House) -> None:
    house.add("one", "a", capture={"enabled": True}, workers={"gpu_sharing": "together"})

    async def scenario() -> None:
        async with house.pool():
            assert await house.ask("generate", "one", *PAIRS[0]) == "ok\n"
            captured = asyncio.create_task(house.ask("capture", "one", *PAIRS[0]))
            await until(lambda: house.standing["nnsight"] == 1)
            assert house.standing["vllm"] == 1
            captured.cancel()

    asyncio.run(scenario())


class SlowLauncher(StubLauncher):
    """A server whose start takes until somebody lets it."""

    def __init__(self, house: House, kind: str) -> None:
        super().__init__(house, kind, "a")
        self.let = asyncio.Event()

    async def start(self) -> str:
        url = await super().start()
        await self.let.wait()
        return url


def test_servers_that_share_a_gpu_start_one_after_the_other(house: House) -> None:
    async def scenario() -> None:
        gate = asyncio.Lock()
        launchers = [SlowLauncher(house, kind) for kind in ("vllm", "nnsight")]
        limits = WorkerLimits(requests=1, restarts=0, start_timeout=SECONDS, hang_timeout=SECONDS)
        workers = [
            Worker(f"w-{number}", "a", None, limits, launcher, lambda: None, gate=gate)
            for number, launcher in enumerate(launchers)
        ]
        tasks = [asyncio.create_task(worker.supervise()) for worker in workers]
        await until(lambda: house.standing["vllm"] == 1)
        await asyncio.sleep(0)
        assert house.standing["nnsight"] == 0
        launchers[0].let.set()
        await until(lambda: house.standing["nnsight"] == 1)
        assert workers[0].state == "live"
        launchers[1].let.set()
        await until(lambda: workers[1].state == "live")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())


class _Fleet:
    """Servers that write a diary."""

    is_down = False

    def __init__(self, kind: str, diary: list[str]) -> None:
        self.kind, self._diary = kind, diary

    def start(self) -> None:
        self._diary.append(f"start {self.kind}")

    async def stop(self) -> None:
        self._diary.append(f"stop {self.kind}")


def test_another_kind_of_server_does_not_cut_a_turn_short() -> None:
    async def scenario() -> list[str]:
        diary: list[str] = []
        turns = Turns(linger=0.01, longest=0.0)
        vllm, capture = _Fleet("vllm", diary), _Fleet("nnsight", diary)

        async def captures() -> None:
            async with turns.hold(capture):
                diary.append("captured")

        async with turns.hold(vllm):
            waiting = asyncio.create_task(captures())
            await asyncio.sleep(0.05)
            async with asyncio.timeout(SECONDS), turns.hold(vllm):  # it would wait for the next turn
                diary.append("generated")
        await asyncio.wait_for(waiting, SECONDS)
        return diary

    assert asyncio.run(scenario()) == ["start vllm", "generated", "stop vllm", "start nnsight", "captured"]


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("chosen", "ids"),
    [
        ("-1", []), ("", []), ("NoDevFiles", []), ("1", ["1"]), ("0, 1", ["0", "1"]), ("0,-1,1", ["0"]),
        ("GPU-1", ["GPU-1"]), ("MIG-5", ["MIG-5"]),
    ],
)  # fmt: skip
def test_gpus_are_chosen_as_cuda_does(monkeypatch: pytest.MonkeyPatch, chosen: str, ids: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
    assert visible_gpus() == ids
