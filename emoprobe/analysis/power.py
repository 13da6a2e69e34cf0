"""Which differences of accuracy a design would show, by simulation of the test that will be made.

The hardest case is assumed, so that the stated difference is shown at least as often as said: the reference solves half
of the questions, and nothing is shared between variants on a question. Accuracies nearer to 0 or 1 and questions that
differ in difficulty vary less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit

from emoprobe.analysis.estimates import MIN_QUESTIONS, Estimates, Floats, Labels, difference
from emoprobe.analysis.questions import Units, units_of
from emoprobe.analysis.statistics import LEVEL, POWER
from emoprobe.config.science.analysis import TONE_TEXTS
from emoprobe.conversations.variants import text_shift

ACCURACY = 0.5  # of the reference
TEXT_DEVIATIONS = (0.0, 0.3)  # how far the texts of one variant differ, standard deviation in logits
RUNS = (600, 4000)  # fewest and most runs of a design
ANSWERS = 1_000_000  # of one side of all runs, which bounds time and memory in between
SIMULATION_ERROR = 0.02  # added to the wanted power: more than a standard error of a share of 600 runs
STEP = 0.005  # differences are stated in half points
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(41)


@dataclass(frozen=True)
class PowerDesign:
    """One comparison: questions, draws of each, texts of either side, tests of its family.

    A reference of 0 texts adds none. `weight` is the share of the level that belongs to this number of questions,
    `asks` how many times the reference is asked each of them, with another text each time.
    """

    questions: int
    draws: int
    texts: int
    reference_texts: int
    tests: int
    weight: float = 1.0
    asks: int = 1

    @property
    def level(self) -> float:
        """The level of one test, by the correction for all."""
        return LEVEL * self.weight / self.tests

    @property
    def general(self) -> bool:
        """Whether there are texts enough for a claim about the tone."""
        return self.texts >= TONE_TEXTS and (self.reference_texts >= TONE_TEXTS or self.reference_texts == 0)

    def labels(self) -> tuple[Labels | None, Labels | None]:
        """Return each question's text, where the claim is about other texts too: (questions,) of the variant, and
        (questions, asks) of the reference.
        """
        index = np.arange(self.questions)
        variant = index % self.texts if self.texts and self.general else None
        if not (self.reference_texts and self.general):
            return variant, None
        shifts = [text_shift(self.reference_texts, ask) for ask in range(self.asks)]
        return variant, (index[:, None] + np.array(shifts)) % self.reference_texts


def marginal(centre: float, deviation: float) -> float:
    """Mean accuracy over normal deviations from a centre, both in logits (Gauss-Hermite quadrature)."""
    return float(WEIGHTS @ expit(centre + deviation * NODES) / WEIGHTS.sum())


def centre_of(accuracy: float, deviation: float) -> float:
    """The centre in logits whose mean accuracy over deviations is this: the inverse of `marginal`."""
    return float(brentq(lambda centre: marginal(centre, deviation) - accuracy, -40.0, 40.0))


class Simulation:
    """Runs of one design that share their random numbers, so that power rises with the difference."""

    def __init__(self, design: PowerDesign, deviation: float, seed: int = 0) -> None:
        self.design = design
        self.labels, self.reference_labels = design.labels()
        ours = [] if self.labels is None else [self.labels]
        theirs = self.reference_labels
        if theirs is None:
            self.units = units_of(ours) or Units()
        elif design.asks == 1:
            self.units = units_of([*ours, theirs[:, 0]]) or Units()
        else:
            self.units = units_of(ours, theirs) or Units()
        # Where a claim is about the texts used, they have no others to deviate from.
        self.deviations = tuple(
            deviation if labels is not None else 0.0 for labels in (self.labels, self.reference_labels)
        )
        generator = np.random.default_rng(seed)
        runs = int(np.clip(ANSWERS // (design.questions * design.draws), *RUNS))
        shapes = ((runs, design.questions, 1), (runs, design.questions, design.asks))
        counts = (design.texts, max(1, design.reference_texts))
        self.texts = tuple(generator.standard_normal((runs, count)) for count in counts)
        self.uniform = tuple(generator.random((*shape, design.draws), dtype=np.float32) for shape in shapes)
        self.theirs = self._answers(1, ACCURACY)

    def _answers(self, side: int, accuracy: float) -> Floats:
        """Shape (runs, questions, asks): share of draws that are right."""
        deviation, labels = self.deviations[side], (self.labels, self.reference_labels)[side]
        level = expit(centre_of(accuracy, deviation) + deviation * self.texts[side]).astype(np.float32)
        chance = level[:, :1] if labels is None else level[:, labels]
        chance = chance.reshape(*chance.shape[:2], -1)  # of the variant there is one ask
        shares: Floats = (self.uniform[side] < chance[..., None]).mean(axis=-1)
        return shares

    def estimates(self, effect: float, margin: float = math.nan) -> Estimates:
        """Simulate the test where the variant's accuracy is higher by `effect`; one result per run."""
        differences = self._answers(0, ACCURACY + effect) - self.theirs
        if self.units.asks == 1:
            differences = differences.mean(axis=-1)
        return difference(differences.reshape(len(differences), -1), *self.units.sides, margin)

    def power(self, effect: float) -> float:
        """Share of the runs in which the difference is shown after the correction for its family."""
        return float((self.estimates(effect).p < self.design.level).mean())

    def equivalence(self, margin: float) -> float:
        """Share of the runs without any difference in which the verdict is equivalent after the correction."""
        return float((self.estimates(0.0, margin).p_equivalent < self.design.level).mean())

    def detectable(self) -> float | None:
        """The smallest difference that is shown in 80 % of the runs; None where no difference is."""
        if self.design.questions < MIN_QUESTIONS:
            return None
        reach = 1 - ACCURACY - STEP
        below, above = 0, round(reach / STEP)
        if self.power(reach) < POWER + SIMULATION_ERROR:
            return None
        while above - below > 1:
            middle = (below + above) // 2
            if self.power(middle * STEP) < POWER + SIMULATION_ERROR:
                below = middle
            else:
                above = middle
        return round(above * STEP, 4)


def text_limit(design: PowerDesign, deviation: float) -> float | None:
    """The difference that no number of questions would bring below: what the texts alone allow, by simulation.

    Args:
        design: its questions and draws do not matter.
        deviation: how far texts differ, in logits; with 0, and for a claim about the texts used, the limit is 0.
    """
    sides = [texts for texts in (design.texts, design.reference_texts) if texts]
    if deviation == 0 or not design.general:
        return 0.0
    # With no noise of questions the accuracies of the texts are known: one question for each pair of texts.
    pairs = math.lcm(*sides)
    repeats = -(-MIN_QUESTIONS // pairs)
    index = np.arange(pairs * repeats)
    generator = np.random.default_rng(0)
    variant_labels, reference_labels = (
        index % texts if texts else None for texts in (design.texts, design.reference_texts)
    )
    levels = [generator.standard_normal((RUNS[0], max(1, texts))) for texts in (design.texts, design.reference_texts)]
    units = [labels for labels in (variant_labels, reference_labels) if labels is not None]
    if len(units) == 2 and np.array_equal(units[0], units[1]):
        units = units[:1]
    divisions = Units(tuple(units)).sides

    def accuracies(side: int, labels: Labels | None, accuracy: float) -> Floats:
        own_deviation = deviation if labels is not None else 0.0
        known = expit(centre_of(accuracy, own_deviation) + own_deviation * levels[side])
        shares: Floats = known[:, labels if labels is not None else np.zeros_like(index)]
        return shares

    theirs = accuracies(1, reference_labels, ACCURACY)

    def power(effect: float) -> float:
        shares = difference(accuracies(0, variant_labels, ACCURACY + effect) - theirs, *divisions, math.nan)
        return float((shares.p < design.level).mean())

    for step in range(1, round((1 - ACCURACY) / STEP)):
        if power(step * STEP) >= POWER:
            return round(step * STEP, 4)
    return None
