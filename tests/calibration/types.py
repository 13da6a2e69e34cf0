"""Sentences on outcomes by the type of their value: how often one is false, and how often a planted effect is told.

Every variant has texts; a question and a text move the value. Of a number the effect is a factor whose mean over all
texts is 1 unless a world says otherwise, so that a tone does nothing on average however unlike its texts are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy.special import expit, softmax

from emoprobe.analysis.outcomes import Outcome
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.config.science.outcome_grader import Value
from emoprobe.report.statements.behaviour import comparisons
from emoprobe.results.tables import completed
from tests.calibration.allowance import least, most
from tests.calibration.rows import Row

COLUMN = "outcome_x"
CATEGORIES = ("a", "b", "c", "d")


@dataclass(frozen=True)
class World:
    """What is planted.

    Attributes:
        value: type of the outcome.
        questions: how many.
        texts: of each variant, in step with one another.
        shift: of the first tone: of a number its share of the mean, else logits (of the first category).
        all_shifted: the other tones are shifted as well.
        margin: of equivalence.
        shape: distribution of a number: word counts, or a polarity in [-1, 1] that is often 0.
        text_deviation: of texts of one variant, on the scale of the shift.
        breaks: share of the texts of a tone that break the answer; the others make up for it.
        missing: share of the first tone's values that are missing, the low ones first.
        rate: of true values, in logits.
        tones: how many.
    """

    value: Value
    questions: int
    texts: int = 10_000
    shift: float = 0.0
    all_shifted: bool = False
    margin: float | None = None
    shape: Literal["words", "polarity"] = "words"
    text_deviation: float = 0.0
    breaks: float = 0.0
    missing: float = 0.0
    rate: float = -1.0
    tones: int = 4


WORLDS = {
    "a rate of 27 %, a text a question, n = 64": World("binary", 64),
    "a rate of 5 %, a text a question, n = 48": World("binary", 48, rate=-4.0),
    "a rate of 27 %, 64 texts that differ, n = 256": World("binary", 256, texts=64, text_deviation=0.5),
    "words, a text a question, n = 24": World("number", 24),
    "words, a text a question, n = 96": World("number", 96),
    "words, one text, n = 12": World("number", 12, texts=1),
    "words, 24 texts that differ, n = 200": World("number", 200, texts=24, text_deviation=0.3),
    "words, 1 text in 8 breaks, a text a question, n = 64": World("number", 64, breaks=1 / 8),
    "words, 1 text in 16 breaks, 32 texts, n = 256": World("number", 256, texts=32, breaks=1 / 16),
    "polarity, a text a question, n = 48": World("number", 48, shape="polarity"),
    "polarity, a fifth is missing, n = 48": World("number", 48, shape="polarity", missing=0.2),
    "words at the margin, n = 128": World("number", 128, shift=0.1, all_shifted=True, margin=2.0),
    "4 categories, a text a question, n = 64": World("category", 64),
    "4 categories, 64 texts that differ, n = 256": World("category", 256, texts=64, text_deviation=0.7),
    "4 categories, 8 texts, n = 96": World("category", 96, texts=8),
    "planted: a rate 1.5 logits higher, n = 128": World("binary", 128, shift=1.5),
    "planted: a third more words, n = 96": World("number", 96, shift=0.35),
    "planted: 1.5 logits in one category, n = 128": World("category", 128, shift=1.5),
}


def outcome_of(world: World) -> Outcome:
    """The outcome of a world."""
    limits = (-1.0, 1.0) if world.shape == "polarity" else None
    margin = 0.1 if world.value != "number" else world.margin
    return Outcome("x", COLUMN, world.value, margin, CATEGORIES if world.value == "category" else (), limits)


def simulate(world: World, generator: np.random.Generator) -> pd.DataFrame:
    """One table of trajectories."""
    n = world.questions
    texts = min(world.texts, n)
    text = np.arange(n) % texts
    level = generator.normal(size=(n, len(CATEGORIES)))
    parts = []
    for place, name in enumerate(("filler", *(f"tone{number}" for number in range(world.tones)))):
        shift = world.shift if place == 1 or (place and world.all_shifted) else 0.0
        deviation = world.text_deviation * generator.normal(size=texts)[text]
        kind = np.where(generator.random(texts) < world.breaks, 0.0, 1 / (1 - world.breaks))[text] if place else 1.0
        values = _values(world, level, shift, deviation, kind, generator)
        part = pd.DataFrame({"variant": name, "sample_id": np.arange(n), "paraphrase": text, COLUMN: values})
        if place == 1 and world.missing:
            order = np.argsort(values)[: int(2 * world.missing * n)]
            part.loc[generator.permutation(order)[: len(order) // 2], COLUMN] = np.nan
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    return completed(table.assign(draw=1, valence=None, failure=None), "trajectories")


def _values(
    world: World,
    level: np.ndarray,
    shift: float,
    deviation: np.ndarray,
    kind: np.ndarray | float,
    generator: np.random.Generator,
) -> np.ndarray:
    n = len(level)
    if world.value == "binary":
        true: np.ndarray = generator.random(n) < expit(world.rate + level[:, 0] + deviation + shift)
        return true
    if world.value == "category":
        logits = level + np.outer(deviation + shift, np.eye(len(CATEGORIES))[0])
        # A deviation moves the first category; all share its size, so that none is special where nothing is planted.
        cumulative = softmax(logits, axis=1).cumsum(axis=1)
        place = (generator.random((n, 1)) > cumulative).sum(axis=1).clip(max=len(CATEGORIES) - 1)
        drawn: np.ndarray = np.array(CATEGORIES)[place]
        return drawn
    factor = np.exp(deviation - world.text_deviation**2 / 2) * kind
    if world.shape == "polarity":
        raw = 0.4 * level[:, 0] + 0.4 * generator.normal(size=n) + shift
        return np.clip(np.where(generator.random(n) < 0.4, 0.0, raw), -1, 1)
    spread = 0.5 * level[:, 0] + 0.4 * generator.normal(size=n)
    return 20 * (1 + shift) * np.exp(spread - (0.5**2 + 0.4**2) / 2) * factor


def said(world: World, generator: np.random.Generator) -> dict[str, str]:
    """The verdict on each tone against the filler, in one run."""
    tests = paired_tests(simulate(world, generator), 0.1, ["filler"], outcomes=[outcome_of(world)])
    return {one.about: str(one.verdict) for one in comparisons(tests, outcome_of(world).margin, COLUMN)}


def rows(name: str, runs: int, seed: int) -> Iterator[Row]:
    """Rows of one of the worlds."""
    world, generator = WORLDS[name], np.random.default_rng(seed)
    found = [said(world, generator) for _ in range(runs)]
    kind = f"{world.value} outcome"
    if name.startswith("planted"):
        told = np.mean([one[f"{COLUMN}:tone0-filler"].startswith("different") for one in found])
        yield Row("told", f"{kind} different", name, runs, float(told), least(runs))
    null = [[verdict for about, verdict in one.items() if "tone0" not in about or not world.shift] for one in found]
    if not world.all_shifted:
        false = np.mean([any(verdict.startswith("different") for verdict in one) for one in null])
        yield Row("false", f"{kind} different", name, runs, float(false), most(runs))
    else:
        false = np.mean([any(verdict.startswith("equivalent") for verdict in one.values()) for one in found])
        yield Row("false", f"{kind} equivalent", name, runs, float(false), most(runs))
