"""A plan of several models on one machine: one model's servers at a time, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from tests.server.pool.house import House, trajectory, until

SAMPLES = [f"gsm8k_{number:04d}" for number in range(1, 5)]
PAIRS = [(variant, sample) for sample in SAMPLES for variant in ("control", "calm")]


async def in_slots(slots: int, jobs: list[Coroutine[Any, Any, str]]) -> list[str]:
    """Run jobs in order, so many at a time, as Snakemake does."""
    room = asyncio.Semaphore(slots)

    async def run(job: Coroutine[Any, Any, str]) -> str:
        async with room:
            return await job

    return await asyncio.gather(*(asyncio.create_task(run(job)) for job in jobs))


def test_interleaved_experiments_of_two_models_all_finish_with_one_server_at_a_time(house: House) -> None:
    layouts = {name: house.add(name, model) for name, model in (("one", "a"), ("two", "b"), ("three", "a"))}

    async def scenario() -> list[str]:
        async with house.pool():
            jobs = [house.ask("generate", name, *pair) for pair in PAIRS for name in layouts]
            return await in_slots(4, jobs)

    assert set(asyncio.run(scenario())) == {"ok\n"}
    assert house.most["vllm"] == 1
    assert all(trajectory(layout, *pair).state for layout in layouts.values() for pair in PAIRS)


def test_no_deadlock_where_every_slot_waits_for_a_model_that_is_not_up(house: House) -> None:
    for name, model in (("one", "a"), ("two", "b")):
        house.add(name, model)

    async def scenario() -> list[str]:
        async with house.pool():
            first = await in_slots(2, [house.ask("generate", "one", *pair) for pair in PAIRS])
            # Both slots hold jobs of the other model, while the servers of the first stand.
            return first + await in_slots(2, [house.ask("generate", "two", *pair) for pair in PAIRS])

    assert set(asyncio.run(scenario())) == {"ok\n"}
    assert house.diary == ["start vllm a", "stop vllm a", "start vllm b", "stop vllm b"]


def test_as_many_servers_as_configured_and_no_more(house: House) -> None:
    for name, model in (("one", "a"), ("two", "b"), ("three", "c")):
        house.add(name, model, workers={"count": 2})

    async def scenario() -> list[str]:
        async with house.pool():
            jobs = [house.ask("generate", name, *pair) for name in ("one", "two", "three") for pair in PAIRS]
            return await in_slots(len(jobs), jobs)

    assert set(asyncio.run(scenario())) == {"ok\n"}
    assert house.most["vllm"] == 2
    # Jobs that wait together are served together: no model is started twice.
    assert sorted(house.diary) == sorted(
        f"{what} vllm {model}" for what in ("start", "stop") for model in "abc" for _ in range(2)
    )


def test_experiments_that_need_the_same_servers_share_them(house: House) -> None:
    house.add("one", "a")
    house.add("two", "a", experiment={"name": "two", "seed": 7}, generation={"max_tokens": 99})
    house.add("three", "a", generation={"engine": {"max_model_len": 128}})

    async def scenario() -> int:
        async with house.pool():
            for name in ("one", "two"):
                assert await house.ask("generate", name, "calm", "gsm8k_0001") == "ok\n"
            assert house.diary == ["start vllm a"]
            assert await house.ask("generate", "three", "calm", "gsm8k_0001") == "ok\n"  # another engine
            status = await house.status()
            assert [fleet["experiments"] for fleet in status["fleets"]] == [["one", "two"], ["three"]]
            return len(house.diary)

    assert asyncio.run(scenario()) == 3


def test_a_turn_goes_on_while_jobs_of_its_model_come(house: House) -> None:
    house.add("one", "a")
    house.add("two", "b")

    async def scenario() -> None:
        async with house.pool(linger=3600.0):
            assert await house.ask("generate", "one", *PAIRS[0]) == "ok\n"
            waiting = asyncio.create_task(house.ask("generate", "two", *PAIRS[0]))
            await until(lambda: queued(house) == 1)
            for pair in PAIRS[1:]:
                assert await house.ask("generate", "one", *pair) == "ok\n"
            assert house.diary == ["start vllm a"]
            waiting.cancel()

    asyncio.run(scenario())


def test_others_wait_for_a_limited_time(house: House) -> None:
    """A model whose jobs never end gives way: later jobs of it wait for its next turn."""
    house.add("one", "a", samples=4)
    house.add("two", "b")

    async def scenario() -> None:
        async with house.pool(linger=3600.0, longest=0.05):
            house.stub("a").gate.clear()
            first = asyncio.create_task(house.ask("generate", "one", *PAIRS[0]))
            await until(lambda: len(house.stub("a").requests) == 1)
            other = asyncio.create_task(house.ask("generate", "two", *PAIRS[0]))
            await until(lambda: queued(house) == 1)
            later: list[asyncio.Task[str]] = []

            async def one_waits_for_the_next_turn() -> bool:
                later.append(asyncio.create_task(house.ask("generate", "one", *PAIRS[1])))
                await until(lambda: len(house.stub("a").requests) + queued(house) == 2 + len(later))
                return queued(house) > 1

            await until(one_waits_for_the_next_turn)
            house.stub("a").gate.set()
            assert set(await asyncio.gather(first, other, *later)) == {"ok\n"}
            assert house.diary == [f"{what} vllm {model}" for model in "ab" for what in ("start", "stop")] + [
                "start vllm a"
            ]

    asyncio.run(scenario())


def test_a_client_that_goes_away_frees_its_place(house: House) -> None:
    house.add("one", "a")
    house.add("two", "b")

    async def scenario() -> None:
        async with house.pool(linger=3600.0):
            assert await house.ask("generate", "one", *PAIRS[0]) == "ok\n"
            waiting = asyncio.create_task(house.ask("generate", "two", *PAIRS[0]))
            await until(lambda: queued(house) == 1)
            waiting.cancel()
            await until(lambda: queued(house) == 0)
            assert (await house.status())["running"] == {}

    asyncio.run(scenario())


def test_generation_and_capture_of_many_models(house: House) -> None:
    """Captures wait for the end of generation on a CPU; one NNsight server stands at a time."""
    names = {"one": "a", "two": "b"}
    for name, model in names.items():
        house.add(name, model, capture={"enabled": True})

    async def scenario() -> list[str]:
        async def both(name: str, variant: str, sample: str) -> str:
            answer = await house.ask("generate", name, variant, sample)
            return answer + await house.ask("capture", name, variant, sample)

        async with house.pool():
            return await in_slots(3, [both(name, *pair) for pair in PAIRS for name in names])

    assert set(asyncio.run(scenario())) == {"ok\nok\n"}
    assert (house.most["vllm"], house.most["nnsight"]) == (1, 1)


@pytest.mark.parametrize("gpus", [[], ["0"]])
def test_what_captures_starts_beside_what_generates(
    house: House, gpus: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.pool.fleets.visible_gpus", lambda: gpus)
    for name, model, enabled in (("one", "a", True), ("two", "b", True), ("three", "c", False)):
        house.add(name, model, capture={"enabled": enabled})

    async def scenario() -> None:
        async with house.pool():
            assert await house.ask("generate", "three", *PAIRS[0]) == "ok\n"
            assert house.standing["nnsight"] == 0
            assert await house.ask("generate", "one", *PAIRS[0]) == "ok\n"
            assert ("start nnsight a" in house.diary) == (not gpus)
            assert await house.ask("generate", "two", *PAIRS[0]) == "ok\n"
            assert "start nnsight b" not in house.diary  # it is still the other one's turn
            assert await house.ask("capture", "two", *PAIRS[0]) == "ok\n"

    asyncio.run(scenario())
    assert house.most["nnsight"] == 1
    assert house.diary.count("start nnsight a") == (not gpus)


def test_generation_on_nnsight_beside_captures_of_another_model(house: House) -> None:
    """Generation waits for the other model's turn, whose captures wait for the end of generation: nobody for ever."""
    house.add("one", "a", capture={"enabled": True})
    house.add("two", "b", capture={"enabled": True}, generation={"backend": "nnsight"})

    async def scenario() -> list[str]:
        async with house.pool():
            answers = await in_slots(3, [house.ask("generate", "one", *pair) for pair in PAIRS])
            captures = [house.ask("capture", "one", *pair) for pair in PAIRS]
            others = [house.ask("generate", "two", *pair) for pair in PAIRS]
            mixed = [job for jobs in zip(captures, others, strict=True) for job in jobs]
            return answers + await in_slots(3, mixed)

    assert set(asyncio.run(scenario())) == {"ok\n"}
    assert house.most["nnsight"] == 1


def test_a_model_that_cannot_be_served_fails_alone(house: House) -> None:
    house.add("one", "a")
    house.add("two", "b")
    house.broken.add("a")

    async def scenario() -> list[str]:
        async with house.pool():
            jobs = [house.ask("generate", name, *pair) for pair in PAIRS[:2] for name in ("one", "two")]
            answers = await in_slots(2, jobs)
            assert house.owner.poll() is None  # the other experiment goes on
            return answers

    first, second, third, fourth = asyncio.run(scenario())
    assert first == third
    assert "No model server is left" in first
    assert "it ended while it started (broken)" in first
    assert (second, fourth) == ("ok\n", "ok\n")
    assert house.diary.count("start vllm a") == 1


def test_a_run_without_any_server_is_stopped(house: House) -> None:
    house.add("one", "a")
    house.broken.add("a")

    async def scenario() -> None:
        async with house.pool():
            assert "No model server is left" in await house.ask("generate", "one", *PAIRS[0])
            await until(lambda: house.owner.poll() is not None)

    asyncio.run(scenario())


def queued(house: House) -> int:
    """How many requests wait for a turn."""
    return sum(fleet.status()["waiting_for_turn"] for fleet in house.fleets)
