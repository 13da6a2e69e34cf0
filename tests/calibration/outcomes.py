"""p(gold) of a family of tones against a filler: false claims, coverage, and the questions that it needs.

A question has a logit, each variant moves it by a tone's shift and by an interaction of its own, and p(gold) is their
logistic function. Difficulty and interaction are set so that paired differences vary as they do on the embedded model:
by 7 points for p(gold), and by 38 for right answers, of which one in three is right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from emoprobe.analysis.estimates import Estimates, difference, whichever
from emoprobe.analysis.power import NODES, WEIGHTS
from emoprobe.analysis.questions import Units, units_of
from emoprobe.analysis.statistics import LEVEL, POWER, holm
from emoprobe.config.science.analysis import TONE_TEXTS
from tests.calibration.allowance import COVERAGE, least, most
from tests.calibration.rows import Row

CENTRE, DIFFICULTY, INTERACTION, OF_GROUP = -2.2, 4.8, 0.45, 0.3
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
    "1 text in 32 helps, 24 texts, n = 1319": World(1319, texts=24, kinds=((31 / 32, -0.05), (1 / 32, 4.0))),
    "just beyond the margin, n = 384": World(384, shifts=(0.7,) * 4),
}
# A shift in the first of the tones, which has to be shown.
PLANTED = {
    "half a logit in one of 8 tones, a text a question, n = 96": World(96, shifts=(0.5, *(0.0,) * 7)),
    "a logit in one of 8 tones, 64 texts that differ, n = 128": World(
        128, texts=64, shifts=(-1.0, *(0.0,) * 7), text_deviation=0.3
    ),
}


@dataclass(frozen=True)
class Measured:
    """p(gold) and right answers of some runs, each of shape (variants, runs, questions), the filler first.

    `truth` has the true differences of the tones to the filler, of shape (tones, runs): over all texts or, where there
    are too few to stand for others, over those that were drawn.
    """

    p_gold: np.ndarray
    correct: np.ndarray
    truth: np.ndarray
    text: np.ndarray
    group: np.ndarray | None


def simulate(world: World, runs: int, generator: np.random.Generator) -> Measured:
    """Draw some runs of a world."""
    n, texts = world.questions, min(world.texts, world.questions)
    text = np.arange(n) % texts
    group = None if world.groups is None else np.arange(n) % world.groups
    chances, moves = np.array(world.kinds).T
    level = world.centre + DIFFICULTY * generator.normal(size=(runs, n))
    p_gold, correct, here = [], [], []
    for place, shift in enumerate((0.0, *world.shifts)):
        moved = world.text_deviation * generator.normal(size=(runs, texts)) + shift
        if place:
            moved = moved + generator.choice(moves, (runs, texts), p=chances)
        logit = level + moved[:, text] + world.interaction * _noise(world, (world.draws, runs, n), generator)
        if group is not None:
            logit = logit + OF_GROUP * generator.normal(size=(runs, world.groups or 1))[:, group]
        chance = expit(logit)
        p_gold.append(chance.mean(axis=0))
        correct.append((generator.random(chance.shape) < chance).mean(axis=0))
        here.append(_mean(world, moved).mean(axis=1))
    values = np.array(p_gold)
    truth = np.array(here[1:]) - here[0] if texts < TONE_TEXTS else np.repeat(_truth(world)[:, None], runs, axis=1)
    if world.missing:
        low = values[1] < np.median(values[1], axis=-1, keepdims=True)
        values[1] = np.where(low & (generator.random(low.shape) < world.missing), np.nan, values[1])
    return Measured(values, np.array(correct), truth, text, group)


def _noise(world: World, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    return generator.normal(size=shape) if world.heavy is None else generator.standard_t(world.heavy, shape)


def _mean(world: World, moved: np.ndarray, more: float = 0.0) -> np.ndarray:
    """The mean p(gold) over all questions at each shift in logits, with a further deviation; heavy tails aside."""
    spread = DIFFICULTY**2 + world.interaction**2 + more**2 + (OF_GROUP**2 if world.groups else 0.0)
    means: np.ndarray = expit(world.centre + moved[..., None] + spread**0.5 * NODES) @ WEIGHTS / WEIGHTS.sum()
    return means


def _truth(world: World) -> np.ndarray:
    """The true difference of each tone, over all questions and texts that could be drawn."""
    chances, moves = np.array(world.kinds).T
    of_kinds = [_mean(world, shift + moves, world.text_deviation) @ chances for shift in world.shifts]
    truth: np.ndarray = np.array(of_kinds) - _mean(world, np.zeros(1), world.text_deviation)[0]
    return truth


@dataclass(frozen=True)
class Claims:
    """Shares of runs of one world: with a false `different`, with a false `equivalent`, of intervals that hold the
    truth; and the median width of these, in probability.
    """

    different: float
    equivalent: float
    covered: float
    width: float


def compared(values: np.ndarray, found: Measured, *, share: bool = False) -> list[Estimates]:
    """Return the differences of the tones to the filler as `paired_tests` computes them: of p(gold), or of a share."""
    labels = found.text if found.text.any() else None
    units = (units_of([labels, labels]) or Units()).sides
    estimates = []
    for value in values[1:]:
        missing = np.isnan(value).any()
        fillings = (value, np.nan_to_num(value, nan=1.0), np.nan_to_num(value)) if missing else (value,)
        known = np.where(np.isnan(value), np.nan, (value + values[0]) / 2)
        unseen = None if share else np.nanmean(known, axis=-1)
        tests = [
            difference(one - values[0], *units, MARGIN, share, found.group, skewed=not share, unseen=unseen)
            for one in fillings
        ]
        estimates.append(whichever(tests))
    return estimates


def claims(world: World, runs: int, seed: int) -> Claims:
    """Simulate a world and judge every tone against the filler."""
    found = simulate(world, runs, np.random.default_rng(seed))
    estimates = compared(found.p_gold, found)
    values, low, high, p, p_equivalent = (
        np.array([getattr(each, name) for each in estimates]) for name in ("value", "low", "high", "p", "p_equivalent")
    )
    different = np.apply_along_axis(holm, 0, p) < LEVEL
    equivalent = ~different & (np.apply_along_axis(holm, 0, p_equivalent) < LEVEL)
    wrong = different & ((np.abs(found.truth) < 1e-9) | (values * found.truth < 0))
    beyond = equivalent & (np.abs(found.truth) >= MARGIN - 1e-3)
    held = (low - 1e-9 <= found.truth) & (found.truth <= high + 1e-9)
    return Claims(
        float(wrong.any(axis=0).mean()),
        float(beyond.any(axis=0).mean()),
        float(held[~np.isnan(low)].mean()),
        float(np.nanmedian(high - low)),
    )


def rows(name: str, runs: int, seed: int) -> Iterator[Row]:
    """Rows of one of the worlds, and of planted shifts."""
    if name in PLANTED:
        world = PLANTED[name]
        yield Row("told", "p(gold) different", name, runs, power(world, runs, seed), least(runs))
        return
    found = claims(WORLDS[name], runs, seed)
    intervals = runs * len(WORLDS[name].shifts)
    yield Row("false", "p(gold) different", name, runs, found.different, most(runs))
    yield Row("false", "p(gold) equivalent", name, runs, found.equivalent, most(runs))
    yield Row("covered", "p(gold)", name, intervals, found.covered, least(intervals, COVERAGE), found.width)


def power(world: World, runs: int, seed: int, *, correct: bool = False) -> float:
    """Share of runs in which the first tone is called different, by p(gold) or by right answers."""
    found = simulate(world, runs, np.random.default_rng(seed))
    estimates = compared(found.correct if correct else found.p_gold, found, share=correct)
    p = np.apply_along_axis(holm, 0, np.array([each.p for each in estimates]))
    return float(((p < LEVEL) & (np.array([each.value for each in estimates]) * world.shifts[0] > 0))[0].mean())


def needed(shifts: tuple[float, ...], runs: int, seed: int, *, correct: bool = False) -> int | None:
    """Return the fewest of `SIZES` questions, each with its own text, at which the first shift is shown in 80 %."""
    return next((n for n in SIZES if power(World(n, shifts=shifts), runs, seed, correct=correct) >= POWER), None)


def main() -> None:
    """Print the questions that p(gold) and accuracy need for the same shift in logits."""
    print("shift (logits)  difference (points)  family  p(gold)  accuracy")
    for shift in (0.5, 1.0, -0.5, -1.0):
        for tones in (1, 8):
            shifts = (shift, *(0.0,) * (tones - 1))
            points = 100 * float(_truth(World(8, shifts=shifts))[0])
            sizes = [needed(shifts, 1000, 1, correct=correct) for correct in (False, True)]
            most_seen, few = (f"> {SIZES[-1]}" if size is None else str(size) for size in sizes[::-1])
            print(f"{shift:14.2f}  {points:19.1f}  {tones:6}  {few:>7}  {most_seen:>8}", flush=True)


if __name__ == "__main__":
    main()
