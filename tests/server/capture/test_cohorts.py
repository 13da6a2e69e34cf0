"""Sequences that come, go and are joined into one batch get the tokens that they get alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import DynamicCache, DynamicLayer

from server.capture.attention import ROOM, RoomyLayer, batch_cache, places
from server.capture.completions import Work
from server.capture.edits import LayerEdit, SequenceEdits, layer_edits
from server.capture.engine import BatchEngine, ChoiceState, Cohort
from server.capture.errors import BadRequestError, NotFiniteError
from server.capture.model import ServedModel
from server.capture.prompts import Decoder
from server.capture.schema import CompletionRequest, StreamEdit
from tests.emoprobe.models.families import WIDTH
from tests.server.capture import tiny_models


@pytest.fixture(scope="module", params=["llama", "gpt2", "bloom", "gemma2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    folder = tiny_models.make_of_family(request.param, tmp_path_factory.mktemp(request.param))
    return ServedModel(str(folder), "tiny", "float32", "cpu")


def row(model: ServedModel, seed: int, count: int, length: int | None = None, **settings: Any) -> ChoiceState:
    """A choice of `count` tokens; every third is steered."""
    generator = random.Random(seed)
    length = generator.randrange(2, 12) if length is None else length
    ids = [generator.randrange(3, 190) for _ in range(length)]
    edits = [StreamEdit(values=[1.0] * WIDTH, layers=[1], operation="add", dose=1.0)] if seed % 3 == 0 else []
    own = layer_edits(edits, Path("/nowhere"), model.architecture)
    steering = SequenceEdits(own, length) if own else None
    values: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "seed": seed} | settings
    return ChoiceState(
        ids,
        count,
        decoder=Decoder(model.tokens, []),
        on_step=lambda: None,
        ignore_eos=True,
        steering=steering,
        **values,
    )


def to_the_end(*cohorts: Cohort) -> None:
    while any(cohort.rows for cohort in cohorts):
        for cohort in cohorts:
            cohort.step()


def same_alone(model: ServedModel, make: Callable[[], ChoiceState], found: ChoiceState) -> None:
    alone = make()
    to_the_end(Cohort(model, [alone]))
    assert found.token_ids == alone.token_ids
    assert [value for value, _ in found.scores] == pytest.approx([value for value, _ in alone.scores], abs=1e-4)
    counts = [None if each.steering is None else each.steering.tokens for each in (found, alone)]
    assert counts[0] == counts[1]


def test_rows_that_leave_change_nothing_for_those_that_stay(model: ServedModel) -> None:
    def make(number: int) -> ChoiceState:
        settings: dict[str, Any] = {"temperature": 1.0} if number % 4 == 3 else {}
        return row(model, number, 1 + (number * 5) % 9, logprobs=number % 3, **settings)

    rows = [make(number) for number in range(12)]
    to_the_end(Cohort(model, list(rows)))
    for number, each in enumerate(rows):
        same_alone(model, lambda number=number: make(number), each)  # type: ignore[misc]


def test_a_sequence_of_no_numbers_fails_alone(model: ServedModel) -> None:
    rows = [row(model, number, 5, 6) for number in range(3)]
    endless = LayerEdit(0, 1, torch.ones(WIDTH) / WIDTH**0.5, float("inf"), "generation")
    rows[1].steering = SequenceEdits((endless,), 6)
    to_the_end(Cohort(model, list(rows)))
    assert [each.finish for each in rows] == ["length", "error", "length"]
    assert len(rows[1].token_ids) == 1
    same_alone(model, lambda: row(model, 2, 5, 6), rows[2])
    # Its request says what to do: without an edit it is the model's type that does not hold the numbers.
    for edits, error, words in (((endless,), BadRequestError, "lower the dose"), ((), NotFiniteError, "another type")):
        work = Work(
            cast(Any, None), "text", CompletionRequest(prompt="x"), None, [], rows[1:2], "x", asyncio.Event(), edits
        )
        with pytest.raises(error, match=words):
            asyncio.run(work.step())


def test_joined_batches_give_what_each_gives(model: ServedModel) -> None:
    def make(number: int) -> ChoiceState:
        return row(model, number, 4 + number % 7, logprobs=1)

    rows = [make(number) for number in range(12)]
    first, second, third = (Cohort(model, rows[begin : begin + 4]) for begin in (0, 4, 8))
    for cohort, steps in ((first, 3), (second, 1), (third, 2)):
        for _ in range(steps):
            cohort.step()
    if not first.takes(second, 100):
        assert any(type(layer) is not RoomyLayer for layer in batch_cache(model.causal.config).layers)
        return
    first.join(second)
    first.step()
    first.join(third)
    to_the_end(first)
    for number, each in enumerate(rows):
        assert len(each.token_ids) == each.max_tokens
        same_alone(model, lambda number=number: make(number), each)  # type: ignore[misc]


def test_columns_without_tokens_are_left_behind(model: ServedModel) -> None:
    """A long sequence that has left does not make those that stay any longer."""
    stays, newcomer = row(model, 1, 12, 3), row(model, 2, 6, 4)
    older, newer = Cohort(model, [row(model, 0, 3, 30), stays]), Cohort(model, [newcomer])
    for _ in range(3):
        older.step()
    newer.step()
    if not older.takes(newer, 100):
        return
    older.join(newer)
    assert older.width <= 3 + 12 + 1
    to_the_end(older)
    same_alone(model, lambda: row(model, 1, 12, 3), stays)
    same_alone(model, lambda: row(model, 2, 6, 4), newcomer)


def test_a_long_sequence_is_not_joined_with_many_short_ones(model: ServedModel) -> None:
    long, short = Cohort(model, [row(model, 1, 5, 100)]), Cohort(model, [row(model, seed, 5, 4) for seed in range(20)])
    long.step()
    short.step()
    assert not long.takes(short, 100)
    assert not short.takes(long, 100)


def test_requests_that_come_one_after_the_other_are_stepped_together(model: ServedModel) -> None:
    """As an engine does it, whose thread has ended so that it can be looked at."""
    engine = BatchEngine(model, batch_tokens=1000, memory=10**9)
    engine.close()
    rows = [row(model, number, 8, 6) for number in range(6)]
    for number, each in enumerate(rows):
        engine.submit_generations([each])
        engine._admit(engine._take_newcomers())
        engine._advance()
        assert sum(len(cohort.rows) for cohort in engine._cohorts) == number + 1
    roomy = all(isinstance(layer, RoomyLayer) for layer in batch_cache(model.causal.config).layers)
    assert len(engine._cohorts) == (1 if roomy else 6)
    while engine._cohorts:
        engine._advance()
    for number, each in enumerate(rows):
        same_alone(model, lambda number=number: row(model, number, 8, 6), each)  # type: ignore[misc]


def test_the_cache_holds_what_was_given_to_it() -> None:
    """A layer against the one of transformers, which copies everything; and memory is given back."""
    torch.manual_seed(0)
    roomy: Any = RoomyLayer()  # type: ignore[no-untyped-call]
    plain: Any = DynamicLayer()  # type: ignore[no-untyped-call]
    cache = DynamicCache()
    cache.layers = [roomy]
    for length in (5, *[1] * (2 * ROOM + 3)):
        keys, values = torch.randn(8, 2, length, 4), torch.randn(8, 2, length, 4)
        for found, expected in zip(roomy.update(keys, values), plain.update(keys, values), strict=True):
            assert torch.equal(found, expected)
    for order in ([0, 7, 2, 6, 5], [0, 1], [0, 1]):
        for layer in (roomy, plain):
            layer.batch_select_indices(torch.tensor(order))
        assert torch.equal(roomy.keys, plain.keys)
        assert torch.equal(roomy.values, plain.values)
    assert places(cache) == 2
