"""The sentence on how well a judge guesses the variant: how often it is false, and how often a judge that knows is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emoprobe.analysis.guesses import guessing
from emoprobe.analysis.origin_limits import judge_limits
from emoprobe.report.statements.notes import notes
from tests.calibration.allowance import least, most
from tests.calibration.rows import Row


@dataclass(frozen=True)
class World:
    """What is planted.

    Attributes:
        knows: share of answers whose variant the judge knows.
        favourite: share of the other guesses that name the first variant, whatever the answer is.
        alike: share of questions whose answers all get the same guess, as it follows from the question.
        questions: how many.
        variants: how many.
        draws: of each answer; the judge guesses the same of all of them.
        copies: of each question, under other ids; the judge guesses the same of all of them.
    """

    knows: float = 0.0
    favourite: float = 0.0
    alike: float = 0.0
    questions: int = 128
    variants: int = 4
    draws: int = 1
    copies: int = 1


WORLDS = {
    "guesses blindly": World(),
    "guesses blindly, 16 questions": World(questions=16),
    "says the first in 80 %": World(favourite=0.8),
    "guesses by the question": World(alike=0.9),
    "guesses by the question, 9 variants": World(alike=0.5, favourite=0.3, variants=9),
    "guesses blindly, the same in 5 draws": World(draws=5),
    "guesses blindly, the same in 4 copies": World(questions=32, copies=4),
    "planted: knows 15 %": World(knows=0.15),
    "planted: knows 15 %, else says the first in 80 %": World(knows=0.15, favourite=0.8),
}


def simulate(world: World, generator: np.random.Generator) -> pd.DataFrame:
    """One table of guesses."""
    shape = world.questions, world.variants
    truth = np.broadcast_to(np.arange(world.variants), shape)
    guess = generator.integers(world.variants, size=shape)
    guess[generator.random(shape) < world.favourite] = 0
    same = generator.random(world.questions) < world.alike
    guess[same] = guess[same][:, :1]
    known = generator.random(shape) < world.knows
    first = pd.DataFrame(
        {
            "variant": truth.ravel().astype(str),
            "sample_id": np.repeat(np.arange(world.questions), world.variants),
            "guess": np.where(known, truth, guess).ravel().astype(str),
        }
    )
    first["question"] = first["sample_id"].map("What is {}?".format)
    copies = [first.assign(sample_id=first["sample_id"] + number * world.questions) for number in range(world.copies)]
    return pd.concat([one.assign(draw=draw) for draw in range(1, world.draws + 1) for one in copies], ignore_index=True)


def rows(name: str, runs: int, seed: int) -> Iterator[Row]:
    """Rows of one of the worlds."""
    world, generator = WORLDS[name], np.random.default_rng(seed)
    told = []
    for _ in range(runs):
        row = {"judge": "x", "model": "judge-x", "trait": None, **guessing(simulate(world, generator), "guess")}
        (said,) = notes(judge_limits(pd.DataFrame([row])))
        told.append("give their variant away, so" in said.text)
    share, kind = float(np.mean(told)), "a judge guesses the variant"
    yield (
        Row("told", kind, name, runs, share, least(runs))
        if world.knows
        else Row("false", kind, name, runs, share, most(runs))
    )
