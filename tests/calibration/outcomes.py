"""p(gold) of a family of tones against a filler: false claims, coverage, and the questions that it needs.

A question has a logit, each variant moves it by a tone's shift and by an interaction of its own, and p(gold) is their
logistic function. Difficulty and interaction are set so that paired differences vary as they do on the embedded model:
by 7 points for p(gold), and by 38 for right answers, of which one in three is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from emoprobe.analysis.estimates import Estimates, difference
from emoprobe.analysis.questions import two_sides, units_of
from emoprobe.analysis.statistics import LEVEL, POWER, holm
from tests.calibration.allowance import least, most
from tests.calibration.rows import Row

COVERAGE = 0.93
CENTRE, DIFFICULTY, INTERACTION = -1.6, 4.2, 0.42
MARGIN = 0.05
SIZES = (8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 256, 320, 384, 448, 512, 640, 768, 1024)


@dataclass(frozen=True)
class World:
    """What is planted.

    Attributes:
        questions: how many.
        texts: of each variant, in step with one another; at most one a question.
        shifts: of the tones, in logits.
        kinds: kinds of texts of a tone, each with its probability and its shift in logits, on top of the tone's.
        text_deviation: of texts of one variant, in logits.
        interaction: of each question and variant, in logits.
        heavy: degrees of freedom of the t distribution that interactions have; None: they are normal.
        groups: how many groups the questions are dealt to, each with an interaction of its own; None: no groups.
        draws: of each question, each with an interaction of its own, as after a thought.
        missing: share of the first tone's values below the median that are missing, as in thoughts that do not end.
        centre: logit of the median question.
    """

    questions: int
    texts: int = 10_000
    shifts: tuple[float, ...] = (0.0,) * 4
    kinds: tuple[tuple[float, float], ...] = ((1.0, 0.0),)
    text_deviation: float = 0.0
    interaction: float = INTERACTION
    heavy: float | None = None
    groups: int | None = None
    draws: int = 1
    missing: float = 0.0
    centre: float = CENTRE


WORLDS = {
    "a text a question, n = 24": World(24),
    "a text a question, n = 96": World(96),
    "a text a question, 12 tones, n = 64": World(64, shifts=(0.0,) * 12),
    "one text, n = 8": World(8, texts=1),
    "one text, n = 64": World(64, texts=1),
    "8 texts that differ, n = 96": World(96, texts=8, text_deviation=0.3),
    "24 texts that differ, n = 400": World(400, texts=24, text_deviation=0.3),
    "64 texts that differ, n = 1319": World(1319, texts=64, text_deviation=0.5),
    "heavy tails, n = 24": World(24, heavy=2.5),
    "heavy tails, n = 96": World(96, heavy=2.5),
    "near the floor, n = 96": World(96, centre=-8.0),
    "near the ceiling, n = 96": World(96, centre=8.0),
    "1 text in 8 breaks, a text a question, n = 96": World(96, kinds=((7 / 8, 0.0), (1 / 8, -6.0))),
    "1 text in 8 breaks, 64 texts, n = 400": World(400, texts=64, kinds=((7 / 8, 0.0), (1 / 8, -6.0))),
    "1 text in 16 breaks, 24 texts, n = 400": World(400, texts=24, kinds=((15 / 16, 0.0), (1 / 16, -6.0))),
    "7 in 8 help, 1 harms, 64 texts, n = 400": World(400, texts=64, kinds=((7 / 8, 0.2), (1 / 8, -1.6))),
    "templates, 200 questions of 20": World(200, groups=20),
    "4 draws, n = 64": World(64, draws=4),
    "a fifth of the low ones is missing, n = 96": World(96, missing=0.2),
    "the margin exactly, n = 384": World(384, shifts=(0.6,) * 4),
}


@dataclass(frozen=True)
class Outcomes:
    """Shares of runs of one world: with a false `different`, with a false `equivalent`, of intervals that hold the
    truth, and the mean width of these.
    """

    different: float
    equivalent: float
    covered: float
    width: float


@dataclass(frozen=True)
class Measured:
    """p(gold) and right answers of some runs, each of shape (variants, runs, questions), the filler first."""

    p_gold: np.ndarray
    correct: np.ndarray
    truth: np.ndarray  # true differences of the tones to the filler, (tones, runs), of all or of the drawn texts
    text: np.ndarray
    group: np.ndarray | None


def simulate(world: World, runs: int, generator: np.random.Generator) -> Measured:
    """Draw some runs of a world."""
    n, texts = world.questions, min(world.texts, world.questions)
    text, shifts = np.arange(n) % texts, np.array([0.0, *world.shifts])
    chances, moves = np.array(world.kinds).T
    level = world.centre + DIFFICULTY * generator.normal(size=(runs, n))
    p_gold, correct, means = [], [], []
    group = None if world.groups is None else np.arange(n) % world.groups
    for place, shift in enumerate(shifts):
        kind = generator.choice(len(chances), (runs, texts), p=chances) if place else np.zeros((runs, texts), int)
        of_text = world.text_deviation * generator.normal(size=(runs, texts)) + (moves[kind] if place else 0.0)
        noise = (
            generator.normal(size=(world.draws, runs, n))
            if world.heavy is None
            else generator.standard_t(world.heavy, (world.draws, runs, n))
        )
        moved = level + shift + of_text[:, text] + world.interaction * noise
        if group is not None:
            moved = moved + 0.3 * generator.normal(size=(runs, world.groups or 1))[:, group]
        chance = expit(moved)
        p_gold.append(chance.mean(axis=0))
        correct.append((generator.random(chance.shape) < chance).mean(axis=0))
        means.append(shift)
    values, answers = np.array(p_gold), np.array(correct)
    truth = _truth(world)[:, None].repeat(runs, axis=1)
    if world.missing:
        low = values[1] < np.median(values[1], axis=-1, keepdims=True)
        values[1] = np.where(low & (generator.random(low.shape) < world.missing), np.nan, values[1])
    return Measured(values, answers, truth, text, group)


def _truth(world: World) -> np.ndarray:
    """The true difference of each tone, over all questions and texts that could be drawn."""
    many = np.random.default_rng(0)
    level = world.centre + DIFFICULTY * many.normal(size=400_000)
    noise = many.normal(size=len(level)) if world.heavy is None else many.standard_t(world.heavy, len(level))
    spread = level + world.text_deviation * many.normal(size=len(level)) + world.interaction * noise
    if world.groups is not None:
        spread = spread + 0.3 * many.normal(size=len(level))
    filler = expit(spread).mean()
    return np.array(
        [
            sum(chance * expit(spread + shift + move).mean() for chance, move in world.kinds) - filler
            for shift in world.shifts
        ]
    )


def outcomes(world: World, runs: int, seed: int) -> Outcomes:
    """Simulate a world and test every tone against the filler, as the table `paired_tests` does."""
    generator = np.random.default_rng(seed)
    found = simulate(world, runs, generator)
    tests = _tests(world, found, found.p_gold)
    estimates = tests[0]
    p, p_equivalent = (
        np.apply_along_axis(holm, 0, np.array([getattr(each, name) for each in estimates]))
        for name in ("p", "p_equivalent")
    )
    values = np.array([each.value for each in estimates])
    different = p < LEVEL
    equivalent = ~different & (p_equivalent < LEVEL)
    zero = np.abs(found.truth) < 1e-9
    wrong = different & (zero | (values * found.truth < 0))
    low, high = (np.array([getattr(each, name) for each in estimates]) for name in ("low", "high"))
    covered = (low - 1e-9 <= found.truth) & (found.truth <= high + 1e-9)
    beyond = equivalent & (np.abs(found.truth) >= MARGIN - 1e-9)
    return Outcomes(
        float(wrong.any(axis=0).mean()),
        float(beyond.any(axis=0).mean()),
        float(covered[~np.isnan(low)].mean()) if not np.isnan(low).all() else float("nan"),
        float(np.nanmedian(high - low)),
    )


def _tests(world: World, found: Measured, values: np.ndarray, share: bool = False) -> list[list[Estimates]]:
    """Differences of the tones to the filler, with the units that the pipeline chooses."""
    one = min(world.texts, world.questions)
    labels = None if one == 1 else found.text
    units = two_sides(units_of([labels, labels]))
    return [
        [
            difference(value - values[0], *units, MARGIN, share, groups=found.group, skewed=not share)
            for value in values[1:]
        ]
    ]
