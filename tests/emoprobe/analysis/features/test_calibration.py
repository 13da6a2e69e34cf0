"""A small part of the calibration of the features; `python -m tests.calibration --only features` runs all of it."""

from __future__ import annotations

import pytest

from tests.calibration.features import WORLDS, World, nothing, rare, rows, template, text_identity

RUNS = 6
CHOSEN = [
    world
    for world in WORLDS
    if world.differing
    or (world.plant, world.questions, world.texts)
    in ((nothing, 24, 1), (rare, 32, 8), (text_identity, 96, 8), (template, 96, 8))
]


@pytest.mark.parametrize("world", CHOSEN, ids=lambda world: world.name)
def test_few_sentences_are_false_and_planted_differences_are_told(world: World) -> None:
    found = rows(world, RUNS)
    assert {row.what for row in found} >= ({"told"} if world.differing else {"false"})
    for row in found:
        assert row.holds, row
