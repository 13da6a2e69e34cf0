"""Print what a conclusion costs: questions, and trajectories, for 80 % power at a difference of 10 points.

`python -m tests.calibration.cost` takes the test that the pipeline makes, of eight tones against a filler with Holm's
correction (the level of its first step), in the hardest case: the filler solves half of the questions, and nothing is
shared between variants on a question. The planned contrast is one test, of four tones against four.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from emoprobe.analysis.estimates import difference
from emoprobe.analysis.power import ACCURACY, PowerDesign, Simulation, centre_of
from emoprobe.analysis.statistics import LEVEL, POWER

EFFECT = 0.1
TONES = 8
DEVIATIONS = (0.0, 0.3)  # of the texts of one variant, in logits
STEP = 24
MOST = 2016  # questions
CONTRAST_RUNS = 2000

Power = Callable[[int, float], float]


def family_power(texts: int | None, asks: int) -> Power:
    """Return the power of one of eight comparisons by questions and deviation; `texts` None: a text for each answer."""

    def power(questions: int, deviation: float) -> float:
        ours, theirs = texts or questions, texts or questions << (asks - 1).bit_length()
        design = PowerDesign(questions, 1, ours, theirs, TONES, asks=asks)
        return Simulation(design, deviation).power(EFFECT)

    return power


def contrast_power(questions: int, deviation: float) -> float:
    """Return the power of the planned contrast where the valences are 10 points apart and each answer has its text."""
    generator = np.random.default_rng(0)
    sides = []
    for accuracy in (ACCURACY - EFFECT / 2, ACCURACY + EFFECT / 2):
        shape = (CONTRAST_RUNS, TONES // 2, questions)
        chance = expit(centre_of(accuracy, deviation) + deviation * generator.standard_normal(shape))
        sides.append((generator.random(shape) < chance).mean(axis=1))
    return float((difference(sides[0] - sides[1], None, None, np.nan).p < LEVEL).mean())


def least_questions(power: Power, deviation: float) -> int | None:
    """Return the fewest questions, in steps of 24, that reach the power; None where none do."""
    low, high = 0, MOST // STEP
    if power(MOST, deviation) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if power(middle * STEP, deviation) < POWER:
            low = middle
        else:
            high = middle
    return high * STEP


# Design → its power, and the trajectories of a question.
DESIGNS: dict[str, tuple[Power, int]] = {
    "64 texts": (family_power(64, 1), TONES + 1),
    "64 texts, filler asked three times": (family_power(64, 3), TONES + 3),
    "a text a question": (family_power(None, 1), TONES + 1),
    "a text a question, filler asked three times": (family_power(None, 3), TONES + 3),
    "one planned contrast, a text a question": (contrast_power, TONES + 1),
}


def main() -> None:
    """Print a row for each design."""
    print("| questions (trajectories) | texts alike | texts differ by 0.3 logit |\n| --- | --- | --- |")
    for name, (power, each) in DESIGNS.items():
        cells = []
        for deviation in DEVIATIONS:
            questions = least_questions(power, deviation)
            cells.append(f"more than {MOST:,}" if questions is None else f"{questions:,} ({questions * each:,})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
