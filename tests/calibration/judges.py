"""Sentences on what a judge measures: how often one is false where the judge leans, and how often an effect is told.

People see every answer as it is; the judge errs, and it errs more in favour of the first tone, which does nothing
unless a world says otherwise. The first questions of the drawn order are labelled.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.special import expit

from emoprobe.analysis.outcomes import ANSWERED, PLACE, Outcome
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.analysis.prediction_powered import LEAST_LABELS
from emoprobe.config.science.outcome_grader import Value
from emoprobe.report.statements.behaviour import comparisons
from emoprobe.results.statement import Statement
from emoprobe.results.tables import completed
from tests.calibration.allowance import least, most
from tests.calibration.rows import Row

COLUMN, PEOPLE = "outcome_x", "human_x"
CATEGORIES = ("a", "b", "c")
MARGIN = 0.1


@dataclass(frozen=True)
class World:
    """What is planted.

    Attributes:
        labels: questions that people have labelled.
        lean: share of the answers of the first tone, of those that are false (or of another category), that the judge
            takes for true; of numbers the points that it adds.
        error: share of all answers on which the judge errs either way; of numbers the standard deviation of its errors.
        value: type of the outcome.
        questions: how many.
        texts: of each variant, in step with one another.
        rate: of true answers, in logits.
        shift: of the first tone as people see it: logits, or points.
        at_margin: of every tone people say true more often, by the margin.
        tones: how many.
    """

    labels: int
    lean: float = 0.2
    error: float = 0.05
    value: Value = "binary"
    questions: int = 256
    texts: int = 10_000
    rate: float = -1.0
    shift: float = 0.0
    at_margin: bool = False
    tones: int = 2


WORLDS = {
    "leans by 20 %, no labels": World(0),
    "leans by 20 %, 24 labels": World(24),
    "leans by 3 %, else right, 48 labels": World(48, lean=0.03, error=0.0),
    "leans by 6 %, else right, 48 labels": World(48, lean=0.06, error=0.0),
    "leans by 3 %, else right, 96 labels": World(96, lean=0.03, error=0.0),
    "leans by 20 %, 48 labels": World(48),
    "leans by 20 %, 96 labels of 128": World(96, questions=128),
    "leans by 50 %, 96 labels": World(96, lean=0.5),
    "leans by 20 %, a rate of 7 %, 96 labels": World(96, rate=-3.0),
    "leans by 20 %, 32 texts, 96 labels": World(96, texts=32),
    "leans by 1 of 10 points, 48 labels": World(48, lean=1.0, error=1.0, value="number"),
    "leans by 20 %, 3 categories, 96 labels": World(96, value="category"),
    "leans by 20 %, people see the margin, 128 labels": World(128, rate=0.0, at_margin=True),
    "planted: 1.5 logits, leans by 10 %, 96 labels": World(96, lean=0.1, shift=1.5),
    "planted: 1.5 of 10 points, leans by 1, 96 labels": World(96, lean=1.0, error=1.0, value="number", shift=1.5),
}


def outcome_of(world: World) -> Outcome:
    """The outcome of a world."""
    categories = CATEGORIES if world.value == "category" else ()
    limits, margin = ((0.0, 10.0), None) if world.value == "number" else (None, MARGIN)
    return Outcome("x", COLUMN, world.value, margin, categories, limits, "judge-x (x)", PEOPLE)


def simulate(world: World, generator: np.random.Generator) -> pd.DataFrame:
    """One table of trajectories, with labels."""
    n = world.questions
    level, place = generator.normal(size=n), generator.permutation(n)
    parts = []
    for number, name in enumerate(("filler", *(f"tone{number}" for number in range(world.tones)))):
        lean, shift = (world.lean, world.shift) if number == 1 else (0.0, 0.0)
        if world.value == "number":
            people = np.clip(5 + 1.5 * level + generator.normal(size=n) + shift, 0, 10)
            judged = np.clip(people + lean + world.error * generator.normal(size=n), 0, 10)
        else:
            true = generator.random(n) < expit(world.rate + level + shift)
            if world.at_margin and number:  # of every tone people say true 10 points more often
                true |= generator.random(n) < MARGIN / (1 - expit(world.rate + level).mean())
            flipped = generator.random(n) < world.error
            taken = (true ^ flipped) | (generator.random(n) < lean)
            other = generator.random(n) < 0.5
            if world.value == "category":
                people, judged = (np.where(one, "a", np.where(other, "b", "c")) for one in (true, taken))
            else:
                people, judged = true.astype(float), taken.astype(float)
        part = pd.DataFrame(
            {"variant": name, "sample_id": np.arange(n), "paraphrase": np.arange(n) % min(n, world.texts)}
        )
        part[COLUMN], part[PEOPLE], part[PLACE] = judged, people, place
        part.loc[part[PLACE] >= world.labels, PEOPLE] = None if world.value == "category" else np.nan
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    return completed(table.assign(draw=1, valence=None, failure=None, **{ANSWERED: 1.0}), "trajectories")


def statements(world: World, generator: np.random.Generator, *, trusted: bool = False) -> dict[str, Statement]:
    """The statement on each tone against the filler, in one run; `trusted`: as if no model had judged."""
    outcome = outcome_of(world)
    if trusted:
        outcome = replace(outcome, judge=None, human=None)
    tests = paired_tests(simulate(world, generator), MARGIN, ["filler"], outcomes=[outcome])
    return {one.about: one for one in comparisons(tests, outcome.margin, COLUMN)}


def said(world: World, generator: np.random.Generator) -> dict[str, str]:
    """The verdict on each tone against the filler, in one run."""
    return {about: str(one.verdict) for about, one in statements(world, generator).items()}


def rows(name: str, runs: int, seed: int) -> Iterator[Row]:
    """Rows of one of the worlds."""
    world, generator = WORLDS[name], np.random.default_rng(seed)
    if world.labels < LEAST_LABELS:
        # Nothing is tested. The same answers, were the judge trusted, show what the sentence has to keep from claiming.
        leaning = f"{COLUMN}:tone0-filler"
        trusted = [statements(world, generator, trusted=True)[leaning] for _ in range(runs)]
        told = np.mean([str(one.verdict).startswith("different") for one in trusted])
        yield Row("told", "different, were it trusted", name, runs, float(told), least(runs))
        described = [statements(world, generator)[leaning] for _ in range(runs)]
        claims = np.mean([one.verdict != "note" or "as judged by judge-x" not in one.text for one in described])
        yield Row("false", "claims more than the judge", name, runs, float(claims), 0.0)
        return
    found = [said(world, generator) for _ in range(runs)]
    if world.at_margin:
        false = np.mean([any(verdict.startswith("equivalent") for verdict in one.values()) for one in found])
        yield Row("false", "judged equivalent", name, runs, float(false), most(runs))
        return
    if world.shift:
        told = np.mean([one[f"{COLUMN}:tone0-filler"].startswith("different") for one in found])
        yield Row("told", "judged different", name, runs, float(told), least(runs))
    null = [[verdict for about, verdict in one.items() if "tone0" not in about or not world.shift] for one in found]
    false = np.mean([any(verdict.startswith("different") for verdict in one) for one in null])
    yield Row("false", "judged different", name, runs, float(false), most(runs))
