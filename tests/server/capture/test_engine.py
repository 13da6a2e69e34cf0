"""How work is shared out into batches and cohorts, without a thread; and what a choice becomes, token by token."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from server.capture.activations import ActivationWriter
from server.capture.app import create_app
from server.capture.edits import LayerEdit, SequenceEdits
from server.capture.engine import (
    LEAST_TOKENS,
    MOST_TOKENS,
    BatchEngine,
    ChoiceState,
    Cohort,
    DeviceMemory,
    Pass,
    measured_batch_tokens,
)
from server.capture.errors import ForwardError, OutOfMemoryError
from server.capture.model import ForwardInput, ServedModel
from server.capture.prompts import Decoder
from server.capture.service import Service
from tests.conftest import PATIENCE
from tests.emoprobe.models.families import WIDTH
from tests.server.capture import tiny_models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    folder = tiny_models.make_of_family("llama", tmp_path_factory.mktemp("model"))
    return ServedModel(str(folder), "tiny", "float32", "cpu")


@pytest.fixture
def engine(model: ServedModel) -> BatchEngine:
    """An engine whose thread has ended, so that its queues can be looked at."""
    stopped = BatchEngine(model, batch_tokens=100, memory=1000)
    stopped.close()
    return stopped


def waiting(length: int, size: int = 0) -> Pass:
    return Pass(ForwardInput([5] * length, [], [], None, torch.float32, True), size)


def generation(model: ServedModel, prompt: list[int], count: int, **settings: Any) -> ChoiceState:
    values = {"temperature": 0.0, "top_p": 1.0, "seed": None} | settings
    return ChoiceState(prompt, count, decoder=Decoder(model.tokens, []), on_step=lambda: None, **values)


def lengths(batch: list[Pass]) -> list[int]:
    return [len(item.sequence.token_ids) for item in batch]


def test_a_batch_holds_the_oldest_and_its_nearest_in_length(engine: BatchEngine) -> None:
    for length in (10, 90, 11, 40, 9, 50):
        engine.submit_pass(waiting(length))
    assert sorted(lengths(engine._take_batch())) == [9, 10, 11]
    assert lengths(engine._take_batch()) == [90]
    assert sorted(lengths(engine._take_batch())) == [40, 50]
    assert engine._take_batch() == []


def test_a_sequence_longer_than_the_budget_goes_alone(engine: BatchEngine) -> None:
    for length in (500, 500):
        engine.submit_pass(waiting(length))
    assert lengths(engine._take_batch()) == [500]


def test_activations_in_flight_are_bounded(engine: BatchEngine) -> None:
    for size in (600, 300, 300):
        engine.submit_pass(waiting(5, size))
    assert [item.bytes for item in engine._take_batch()] == [600, 300]
    assert engine.load["held_bytes"] == 900
    assert engine._take_batch() == []
    engine.release(900)
    assert [item.bytes for item in engine._take_batch()] == [300]


def test_one_that_is_larger_than_the_memory_is_let_in_alone(engine: BatchEngine) -> None:
    engine.submit_pass(waiting(5, 5000))
    assert [item.bytes for item in engine._take_batch()] == [5000]


def test_what_was_cancelled_is_not_run(engine: BatchEngine, model: ServedModel) -> None:
    items = [waiting(5) for _ in range(3)]
    for item in items:
        engine.submit_pass(item)
    items[0].result.cancel()
    batch = engine._take_batch()
    assert len(batch) == 2
    batch[0].result.cancel()
    engine._forward(batch)
    assert [item.result.cancelled() for item in items].count(True) == 2
    assert items[2].result.done()
    rows = [generation(model, [5], 1), generation(model, [6], 1)]
    engine.submit_generations(rows)
    rows[0].cancelled = True
    assert engine._take_newcomers() == [rows[1]]


def test_two_of_equal_tokens_are_two(model: ServedModel) -> None:
    engine = BatchEngine(model, batch_tokens=100, memory=1000)
    try:
        passes = [waiting(5, 10) for _ in range(4)]
        for item in passes:
            engine.submit_pass(item)
        for _ in range(3):
            rows = [generation(model, [5, 6], 2) for _ in range(2)]
            done = [threading.Event() for _ in rows]
            for row, event in zip(rows, done, strict=True):
                row.on_step = lambda row=row, event=event: event.set() if row.finish else None  # type: ignore[misc]
            engine.submit_generations(rows)
            assert all(event.wait(PATIENCE) for event in done)
            assert rows[0].token_ids == rows[1].token_ids
        assert all(item.result.result(PATIENCE) for item in passes)
    finally:
        engine.close()


def test_of_two_of_equal_tokens_one_is_cancelled(engine: BatchEngine) -> None:
    items = [waiting(5, 10), waiting(5, 10)]
    for item in items:
        engine.submit_pass(item)
    batch = engine._take_batch()
    items[0].result.cancel()
    engine._forward(batch)
    assert items[1].result.done()
    assert engine.load["held_bytes"] == 10  # that of the other, until it is written


def test_newcomers_share_the_token_budget(engine: BatchEngine, model: ServedModel) -> None:
    engine.memory = 10**9
    rows = [generation(model, [5] * 40, 2) for _ in range(5)]
    engine.submit_generations(rows)
    assert [len(engine._take_newcomers()) for _ in range(3)] == [2, 2, 1]


def test_a_failed_pass_tells_all_who_wait(engine: BatchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.model, "forward", fail)
    items = [waiting(5, 10), waiting(5, 10)]
    for item in items:
        engine.submit_pass(item)
    engine._forward(engine._take_batch())
    assert [type(item.result.exception()) for item in items] == [ForwardError] * 2
    assert engine.load["held_bytes"] == 0


ERRORS = [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED in x")]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(("most", "failed"), [(2, 0), (1, 0), (0, 4)])
def test_a_pass_without_memory_is_halved_until_it_fits(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch, error: Exception, most: int, failed: int
) -> None:
    forward, sizes = engine.model.forward, []

    def limited(batch: Any) -> Any:
        sizes.append(len(batch))
        if len(batch) > most:
            raise error
        return forward(batch)

    monkeypatch.setattr(engine.model, "forward", limited)
    items = [waiting(5, 10) for _ in range(4)]
    for item in items:
        engine.submit_pass(item)
    engine._forward(engine._take_batch())
    assert sizes == {2: [4, 2, 2], 1: [4, 2, 1, 1, 2, 1, 1], 0: [4, 2, 1, 1, 2, 1, 1]}[most]
    assert [type(item.result.exception()) for item in items].count(OutOfMemoryError) == failed
    assert engine.load["held_bytes"] == 10 * (4 - failed)
    assert engine.failure is None
    for _ in range(4):  # later batches have the size that fitted
        engine.submit_pass(waiting(5))
    assert len(engine._take_batch()) == max(1, min(2, most))


def test_generations_without_memory_go_on_in_halves_with_the_same_tokens(
    engine: BatchEngine, model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.memory = 10**9
    whole = [generation(model, [5 + number, 6, 7], 6, ignore_eos=True) for number in range(4)]
    edit = LayerEdit(0, 1, torch.ones(WIDTH) / WIDTH**0.5, 1.0, "all")
    for row in whole:
        row.steering = SequenceEdits((edit,), 3)
    cohort = Cohort(model, list(whole))
    while cohort.rows:
        cohort.step()
    rows = [generation(model, [5 + number, 6, 7], 6, ignore_eos=True) for number in range(4)]
    for row in rows:
        row.steering = SequenceEdits((edit,), 3)
    engine.submit_generations(list(rows))
    engine._admit(engine._take_newcomers())
    engine._advance()
    forward, sizes = model.causal.forward, []

    def limited(**inputs: Any) -> Any:
        sizes.append(len(inputs["input_ids"]))
        output = forward(**inputs)
        if len(inputs["input_ids"]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")  # when the caches have the new token
        return output

    monkeypatch.setattr(model.causal, "forward", limited)
    while engine._cohorts:
        engine._advance()
    assert max(sizes[1:]) == 2
    assert [row.token_ids for row in rows] == [row.token_ids for row in whole]
    assert [row.steering.tokens for row in rows if row.steering] == [
        row.steering.tokens for row in whole if row.steering
    ]

    def without(**_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(model.causal, "forward", without)
    alone = generation(model, [5, 6], 2)
    engine._admit([alone])
    engine._advance()
    assert (alone.finish, type(alone.error), engine._cohorts) == ("error", OutOfMemoryError, [])


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: device-side assert triggered"),
        RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with TORCH_USE_CUDA_DSA"),
    ],
)
def test_an_error_that_breaks_the_device_fails_the_health_check(
    engine: BatchEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception
) -> None:
    app = create_app(Service(engine.model, engine, ActivationWriter(tmp_path)), None, 60.0)

    def health() -> httpx.Response:
        async def get() -> httpx.Response:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                return await client.get("/health")

        return asyncio.run(get())

    def fail(_: Any) -> Any:
        raise error

    assert health().status_code == 200
    monkeypatch.setattr(engine.model, "forward", fail)
    engine.submit_pass(waiting(5))
    engine._forward(engine._take_batch())
    assert health().status_code == 503
    assert str(error).partition("\n")[0] in health().text


def test_halves_that_cannot_be_begun_fail_alone(model: ServedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of other batches are answered, and nobody waits for ever."""
    engine = BatchEngine(model, batch_tokens=100, memory=1 << 30)
    engine.close()
    rows = [generation(model, [5, 6, 7], 4) for _ in range(4)]
    cohorts = [Cohort(model, rows[:2]), Cohort(model, rows[2:])]
    step = Cohort.step

    def without_memory(cohort: Cohort) -> None:
        if cohort is cohorts[0]:
            monkeypatch.setattr("server.capture.engine.Cohort", fail)
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(cohort)

    def fail(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Cohort, "step", without_memory)
    engine._cohorts = list(cohorts)
    engine._advance()
    assert [(row.finish, len(row.token_ids)) for row in rows] == [("error", 0)] * 2 + [(None, 1)] * 2
    assert engine._cohorts == [cohorts[1]]


@pytest.mark.parametrize(("top_p", "allowed"), [(1.0, {0, 1, 2, 3}), (0.6, {0, 1}), (0.45, {0}), (1e-9, {0})])
def test_a_token_is_drawn_from_the_nucleus(model: ServedModel, top_p: float, allowed: set[int]) -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    row = generation(model, [5], 1, temperature=1.0, top_p=top_p, seed=3)
    drawn = [row.choose(logits) for _ in range(400)]
    assert set(drawn) == allowed
    again = generation(model, [5], 1, temperature=1.0, top_p=top_p, seed=3)
    assert [again.choose(logits) for _ in range(400)] == drawn


def test_frequencies_are_the_probabilities(model: ServedModel) -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    row = generation(model, [5], 1, temperature=1.0, seed=1)
    counts = torch.bincount(torch.tensor([row.choose(probabilities.log()) for _ in range(4000)]), minlength=4)
    assert torch.allclose(counts / 4000, probabilities, atol=0.03)


@pytest.mark.parametrize(
    ("tokens", "ignore", "finish"),
    [([7, 2], False, "stop"), ([7, 2, 7, 7], True, "length"), ([7] * 4, False, "length")],
)
def test_a_choice_ends_at_the_end_token_or_the_limit(
    model: ServedModel, tokens: list[int], ignore: bool, finish: str
) -> None:
    row = generation(model, [5], 4, ignore_eos=ignore)
    for token in tokens:
        assert row.finish is None
        row.take(token, model.tokens.eos_ids)
    assert (row.finish, row.token_ids) == (finish, tokens)


def test_an_error_outside_of_a_request_fails_what_waits_and_the_engine_goes_on(
    model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out where the caches of new generations are counted."""
    engine = BatchEngine(model, batch_tokens=100, memory=1 << 30)
    told = threading.Event()
    failing = generation(model, [5, 6], 2)
    failing.on_step = told.set
    with monkeypatch.context() as patched:
        patched.setattr(ServedModel, "cache_bytes_per_token", property(lambda self: 1 // 0), raising=False)
        engine.submit_generations([failing])
        assert told.wait(PATIENCE)
    assert failing.finish == "error"
    done = threading.Event()
    next_one = generation(model, [5, 6], 2)
    next_one.on_step = lambda: done.set() if next_one.finish is not None else None
    engine.submit_generations([next_one])
    assert done.wait(PATIENCE)
    assert next_one.finish == "length"
    engine.close()


class FakeMemory(DeviceMemory):
    """A GPU whose passes take so much, and which has so much free."""

    def __init__(self, taken: int, free: int) -> None:
        self._taken, self._free, self.passes = taken, free, 0

    def used_by(self, call: Callable[[], object]) -> int:
        call()
        self.passes += 1
        return self._taken

    def free(self) -> int:
        return self._free


@pytest.mark.parametrize(
    ("taken", "free", "budget"),
    # 2,048 tokens that take 1 GiB of 16 GiB: half of the free memory holds 8 times as many.
    [(1 << 30, 16 << 30, 8 * 2048), (1 << 30, 1 << 30, LEAST_TOKENS), (1 << 20, 64 << 30, MOST_TOKENS)],
)
def test_the_token_budget_follows_measured_memory(model: ServedModel, taken: int, free: int, budget: int) -> None:
    memory = FakeMemory(taken, free)
    assert measured_batch_tokens(model, memory) == budget
    assert memory.passes == 1
    assert measured_batch_tokens(model) == LEAST_TOKENS  # on a CPU nothing is measured
