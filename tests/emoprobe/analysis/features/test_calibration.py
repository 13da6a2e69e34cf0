"""A small part of the calibration of the features; `python -m tests.calibration --only features` runs all of it."""

from __future__ import annotations

import pytest

from tests.calibration.allowance import most
from tests.calibration.features import WORLDS, World, rows

RUNS = 8


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_few_sentences_are_false(world: World) -> None:
    for row in rows(world, RUNS):
        if row.what == "false":
            assert row.share <= most(RUNS), row


def test_planted_differences_are_told() -> None:
    for world in WORLDS:
        if world.differing:
            (told,) = (row for row in rows(world, RUNS) if row.what == "told")
            assert told.holds, told
