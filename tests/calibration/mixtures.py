"""Texts of a tone, or templates of questions, that do not all do the same: false claims, and what intervals cover.

Many runs at once, through the estimates and the choice of units alone; `behaviour.text_scenes` goes all the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from emoprobe.analysis.estimates import Estimates, difference
from emoprobe.analysis.power import centre_of
from emoprobe.analysis.questions import units_of
from emoprobe.analysis.statistics import LEVEL, holm
from emoprobe.config.science.analysis import TONE_TEXTS
from emoprobe.conversations.variants import text_shift
from tests.calibration.allowance import COVERAGE, least, most
from tests.calibration.rows import Row

MARGIN = 0.1
# Kinds of texts, each with its probability and by how much it moves the accuracy; the accuracy of the filler.
MIXTURES: dict[str, tuple[tuple[tuple[float, float], ...], float]] = {
    "7 in 8 help by 5, 1 harms by 35": (((7 / 8, 0.05), (1 / 8, -0.35)), 0.5),
    "1 in 8 breaks": (((7 / 8, 0.0), (1 / 8, -0.8)), 0.9),
    "1 in 4 breaks": (((3 / 4, 0.0), (1 / 4, -0.8)), 0.9),
    "1 in 32 helps by 40": (((31 / 32, -0.4 / 31), (1 / 32, 0.4)), 0.5),
    "1 in 16 harms by 40": (((15 / 16, 0.4 / 15), (1 / 16, -0.4)), 0.5),
    "1 in 16 breaks, all others harm by 5": (((15 / 16, -0.05), (1 / 16, -0.85)), 0.9),
    "half help and half harm by 20": (((0.5, 0.2), (0.5, -0.2)), 0.5),
    "1 in 6 harms by 30, 1 in 3 helps by 15": (((1 / 6, -0.3), (1 / 2, 0.0), (1 / 3, 0.15)), 0.5),
    "all alike": (((1.0, 0.0),), 0.5),
}
DESIGNS = ((24, 96), (24, 1319), (32, 400), (64, 96), (64, 400), (64, 1319), (24, 24), (96, 96), (672, 672))
GROUPED = ((24, 480), (32, 320), (60, 600), (100, 1319))  # groups of questions in place of texts
TONES = (1, 4, 8)
# Texts, questions, asks of the filler, deviation of the texts in logits.
ASKED = (
    (64, 64, 3, 0.0),
    (64, 64, 3, 0.5),
    (24, 400, 3, 0.5),
    (64, 400, 2, 1.0),
    (64, 1319, 3, 0.5),
    (1728, 432, 3, 0.3),
)


@dataclass(frozen=True)
class Claims:
    """Shares of runs of one world.

    Attributes:
        different: in which a tone is called different falsely.
        equivalent: in which one is called equivalent falsely.
        covered: of the intervals that hold the truth.
        width: not a share but the median width of these.
    """

    different: float
    equivalent: float
    covered: float
    width: float


def claims(
    mixture: str, texts: int, questions: int, tones: int, runs: int, seed: int, *, grouped: bool = False
) -> Claims:
    """Simulate a family of tones against a filler whose texts all do the same.

    Args:
        mixture: kinds of texts.
        texts: of each tone.
        questions: that each is asked.
        tones: of the family.
        runs: how many.
        seed: of the simulation.
        grouped: kinds are those of so many groups of questions, such as templates, and each question has its own text.

    Raises:
        ValueError: with so few texts nothing is claimed about a tone.
    """
    kinds, accuracy = MIXTURES[mixture]
    chances, points = np.array(kinds).T
    truth = float(chances @ points)
    generator = np.random.default_rng(seed)
    text = np.arange(questions) % texts
    units = units_of([text, text])
    if units is None:
        raise ValueError(f"{texts} texts are fewer than {TONE_TEXTS}")
    level = expit(centre_of(accuracy, 1.0) + generator.normal(0, 1, (runs, questions)))
    filler = (generator.random((runs, questions)) < level).astype(float)
    found: list[Estimates] = []
    for _ in range(tones):
        moved = generator.choice(points, (runs, texts), p=chances)
        share = np.where(moved > 0, moved / (1 - accuracy), moved / accuracy)[:, text]
        chance = np.where(share > 0, level + share * (1 - level), level * (1 + share))
        answers = (generator.random((runs, questions)) < chance).astype(float)
        differences = answers - filler
        found.append(
            difference(differences, None, None, MARGIN, groups=text, other_groups=True)
            if grouped
            else difference(differences, *units.sides, MARGIN)
        )
    return _claims(found, truth)


def asked_claims(texts: int, questions: int, asks: int, deviation: float, runs: int, seed: int) -> Claims:
    """Simulate eight tones that do nothing against a filler that is asked several times.

    Args:
        texts: of each tone and of the filler.
        questions: that each is asked.
        asks: of the filler, each with another text.
        deviation: of the texts of a variant, in logits.
        runs: how many.
        seed: of the simulation.
    """
    generator, index = np.random.default_rng(seed), np.arange(questions)
    text = index % texts
    theirs = (index[:, None] + np.array([text_shift(texts, ask) for ask in range(asks)])) % texts
    units = units_of([text], theirs)
    assert units is not None
    level = centre_of(0.5, float(np.hypot(1.0, deviation))) + generator.normal(0, 1, (runs, questions))

    def solved(labels: np.ndarray) -> np.ndarray:
        moved = generator.normal(0, deviation, (runs, texts))[:, labels]
        hard = level if labels.ndim == 1 else level[:, :, None]
        right: np.ndarray = (generator.random(moved.shape) < expit(hard + moved)).astype(float)
        return right

    filler = solved(theirs)
    found: list[Estimates] = []
    for _ in range(max(TONES)):
        differences = solved(text)[:, :, None] - filler
        observations = differences.mean(axis=-1) if units.asks == 1 else differences.reshape(runs, -1)
        found.append(difference(observations, *units.sides, MARGIN))
    return _claims(found, 0.0)


def asked_rows(runs: int, seed: int) -> Iterator[Row]:
    """Rows for designs in which the filler is asked several times."""
    for texts, questions, asks, deviation in ASKED:
        found = asked_claims(texts, questions, asks, deviation, runs, seed)
        world = f"filler asked {asks} times, {texts} texts that differ by {deviation:g}, n = {questions}"
        yield Row("false", "different of a tone", world, runs, found.different, most(runs))
        yield Row("covered", "of a tone", world, runs, found.covered, least(runs, COVERAGE), found.width)


def _claims(found: list[Estimates], truth: float) -> Claims:
    """The shares of false claims of several tones, each with an estimate a run."""
    p, p_equivalent = (
        np.apply_along_axis(holm, 0, np.array([getattr(each, name) for each in found]))
        for name in ("p", "p_equivalent")
    )
    values = np.array([each.value for each in found])
    different = p < LEVEL
    equivalent = ~different & (p_equivalent < LEVEL)
    wrong = different & ((abs(truth) < 1e-9) | (values * truth < 0))
    held = [(each.low - 1e-9 <= truth) & (truth <= each.high + 1e-9) for each in found]
    return Claims(
        float(wrong.any(axis=0).mean()),
        float((equivalent & (abs(truth) >= MARGIN - 1e-9)).any(axis=0).mean()),
        float(np.mean(held)),
        float(np.median([each.high - each.low for each in found])),
    )


def rows(mixture: str, runs: int, seed: int) -> Iterator[Row]:
    """Rows for each design and number of tones."""
    designs = [(*design, False) for design in DESIGNS] + [(*design, True) for design in GROUPED]
    for texts, questions, grouped in designs:
        for tones in TONES:
            found = claims(mixture, texts, questions, tones, runs, seed, grouped=grouped)
            world = f"{mixture}, {texts} {'groups' if grouped else 'texts'}, n = {questions}, {tones} tones"
            yield Row("false", "different of a tone", world, runs, found.different, most(runs))
            yield Row("false", "equivalent of a tone", world, runs, found.equivalent, most(runs))
            yield Row("covered", "of a tone", world, runs, found.covered, least(runs, COVERAGE), found.width)
