"""Survival of a right first answer: false sentences, and a planted loss.

A table of one answer (`trajectories.simulate`) is that of the last answers. The first answers are those of a tone more,
which shares the difficulty of the questions with the others: easy questions are right at first, and their last answers
are right more often.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from emoprobe.analysis.outcomes import SURVIVAL
from emoprobe.analysis.paired_tests import paired_tests
from tests.calibration.allowance import least, most
from tests.calibration.rows import Row
from tests.calibration.trajectories import Scene, simulate

MARGIN = 0.1
OUTCOME = replace(SURVIVAL, margin=MARGIN)
ONE_EACH = 10_000  # texts where each question has its own


@dataclass(frozen=True)
class World:
    """What is planted.

    Attributes:
        last: the last answers, without difference between the tones but where said.
        first: accuracy of the first answers.
        unlike: share of the first answers that are drawn anew for each variant, as where decoding is not reproducible.
        loss: what the tones lose in truth, in shares of the questions that are right at first.
    """

    last: Scene
    first: float = 0.5
    unlike: float = 0.0
    loss: float = 0.0


WORLDS = {
    "one text, n = 24": World(Scene(24, texts=1)),
    "one text, n = 128": World(Scene(128, texts=1)),
    "a text a question, n = 64": World(Scene(64, texts=ONE_EACH, interaction=0.5)),
    "a text a question, n = 400": World(Scene(400, texts=ONE_EACH, text_deviation=0.5)),
    "64 texts that differ, n = 128": World(Scene(128, texts=64, text_deviation=0.5), 0.35),
    "64 texts that differ, n = 1319": World(Scene(1319, texts=64, text_deviation=0.5)),
    "few are right at first, n = 400": World(Scene(400, texts=ONE_EACH, difficulty=2.0), 0.1),
    "nearly all survive, n = 400": World(Scene(400, (0.97,) * 4, 0.97, 0.97, texts=1), 0.5),
    "4 draws of one text, n = 40": World(Scene(40, draws=4, texts=1, difficulty=2.0)),
    "failures, n = 200": World(Scene(200, texts=ONE_EACH, failures=0.02)),
    "first answers differ by chance, n = 200": World(Scene(200, texts=ONE_EACH), unlike=0.3),
    "at the margin, n = 400": World(Scene(400, (0.5,) * 4, 0.6, 0.6, texts=ONE_EACH, difficulty=0.0), loss=0.1),
    "at the margin, one text, n = 128": World(Scene(128, (0.5,) * 4, 0.6, 0.6, texts=1, difficulty=0.0), loss=0.1),
}
PLANTED = {
    "30 points fewer survive, n = 400": World(
        Scene(400, (0.5,) * 4, 0.8, 0.8, texts=ONE_EACH, difficulty=0.0), loss=0.3
    ),
}


def table_of(world: World, generator: np.random.Generator) -> pd.DataFrame:
    """A table of trajectories with first and last answers."""
    scene = world.last
    more = f"tone{len(scene.tones)}"
    table = simulate(replace(scene, tones=(*scene.tones, world.first)), generator)
    table["valence"] = table["variant"].map(scene.valences).astype("string")
    first = table[table["variant"] == more].set_index(["sample_id", "draw"])["correct"]
    table = table[table["variant"] != more].reset_index(drop=True)
    places = pd.MultiIndex.from_frame(table[["sample_id", "draw"]])
    right = first.reindex(places).fillna(False).to_numpy(dtype=bool)
    if world.unlike:
        anew = generator.random(len(table)) < world.unlike
        right = np.where(anew, generator.random(len(table)) < world.first, right)
    failed = table["failure"].notna()
    table["correct_first"] = pd.Series(right, dtype="boolean").mask(failed)
    table["survived"] = table["correct"].mask(~table["correct_first"].fillna(False))
    return table


def rows(name: str, runs: int, seed: int) -> Iterator[Row]:
    """How often a verdict of a family is false in a world or, where a loss is planted, tells it."""
    world = (WORLDS | PLANTED)[name]
    generator = np.random.default_rng(seed)
    said: Counter[tuple[str, str]] = Counter()
    for _ in range(runs):
        tests = paired_tests(table_of(world, generator), MARGIN, outcomes=[OUTCOME])
        survival = tests[tests["measure"] == OUTCOME.column]
        verdicts = zip(survival["family"], survival["verdict"], strict=True)
        said.update({(family.removeprefix("survival_"), verdict.removesuffix("_here")) for family, verdict in verdicts})
    if name in PLANTED:
        yield Row("told", "survival different", name, runs, said["primary", "different"] / runs, least(runs))
        return
    for family in ("primary", "planned"):  # the planned contrast is of tones among each other, which do not differ
        false = "equivalent" if world.loss and family == "primary" else "different"
        share = said[family, false] / runs
        yield Row("false", f"survival {family} {false}", name, runs, share, most(runs))
