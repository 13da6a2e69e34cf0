"""Differences of what a judge measures, corrected by human labels: prediction-powered inference (PPI++).

Angelopoulos, Bates, Fannjiang, Jordan and Zrnic, Science 382, 669 (2023), and Angelopoulos, Duchi and Zrnic,
arXiv:2311.01453 (2023), for the mean of paired differences. The labelled questions are a random part of all. The mean
of the judge over all of them, times λ, plus the mean over the labelled ones of what people say beyond λ times the
judge, has the expectation of what people say, however the judge errs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special

from emoprobe.analysis.estimates import Estimates, Floats, Labels
from emoprobe.analysis.outcomes import ANSWERED, PLACE, Outcome
from emoprobe.analysis.questions import Questions, Units
from emoprobe.analysis.statistics import CONFIDENCE

# With fewer labelled questions, or labels of the rarer value, nothing is claimed: `tests/calibration/judges.py`.
LEAST_LABELS = 48
LEAST_POSITIVES = 8
# A rare kind of answer on which the judge errs may be among none of the labelled ones. The interval is what it would be
# had so many more labelled questions disagreed with the judge by as much as there can be, half of them each way.
UNSEEN_ERRORS = 4


def corrected_difference(
    human: Floats,
    judge: Floats,
    width: float,
    margin: float = float("nan"),
    groups: Labels | None = None,
    confidence: float = CONFIDENCE,
) -> Estimates:
    """Return the mean of paired differences as people judge them, with a t interval of as many units as are labelled.

    λ is the slope of people's differences over the judge's on the labelled questions, in [0, 1], which makes the
    variance least: a judge that knows nothing takes no part.

    Args:
        human: shape (n,): what people say, variant minus reference; NaN where a question has no labels.
        judge: the same of the judge; NaN, where it gave no value, counts as no difference.
        width: what a value can differ by at most: 1 for shares.
        margin: differences within it count as equivalent; NaN: equivalence is not tested.
        groups: shape (n,): units of which several questions are one, such as texts; None: each is its own.
        confidence: of the interval.
    """
    labelled = ~np.isnan(human)
    units = np.arange(len(human)) if groups is None else np.unique(groups, return_inverse=True)[1]
    known = len(np.unique(units[labelled]))
    if known < 2:
        nothing = np.full((), np.nan)
        return Estimates(nothing, nothing, nothing, nothing, nothing)
    guess = np.where(np.isnan(judge), 0.0, judge)
    said, guessed = human[labelled], guess[labelled]
    spread = float(guessed.var())
    slope = (
        0.0
        if spread == 0
        else float(np.clip(np.mean((said - said.mean()) * (guessed - guessed.mean())) / spread, 0, 1))
    )
    errors = said - slope * guessed
    value = slope * guess.mean() + errors.mean()
    influence = slope * (guess - guess.mean()) / len(guess)
    influence[labelled] += (errors - errors.mean()) / len(errors)
    sums = np.bincount(units, influence)
    error = np.sqrt((sums**2).sum() * known / (known - 1) + UNSEEN_ERRORS * (width / len(errors)) ** 2)
    reach = special.stdtrit(known - 1, (1 + confidence) / 2) * error
    p = 2 * special.stdtr(known - 1, -abs(value) / error)
    equivalent = special.stdtr(known - 1, (abs(value) - margin) / error)
    return Estimates(*(np.asarray(one, dtype=float) for one in (value, value - reach, value + reach, p, equivalent)))


@dataclass(frozen=True)
class Labelled:
    """Number of labelled questions, with the corrected estimate or the reason why there is none."""

    count: int
    why: str | None = None
    estimate: Estimates | None = None


def labelled(
    questions: Questions,
    outcome: Outcome,
    places: Sequence[int],
    human: tuple[Floats, Floats],
    judge: tuple[Floats, Floats],
    units: Units,
) -> Labelled:
    """Correct a judge by the labels of people.

    Labels count as far as they are those of the first questions of the drawn order, with none left out: others may have
    been chosen for what they hold.

    Args:
        questions: the trajectories, with the columns of `emoprobe.analysis.labels`.
        outcome: what the judge measures.
        places: rows of `questions` of the variants on both sides.
        human: values of both sides by people, each of shape (questions,).
        judge: the same by the judge.
        units: of the claim.
    """
    said: Floats = human[0] - human[1]
    order = np.argsort(np.nanmax(questions.values(PLACE), axis=0))
    gaps = np.flatnonzero(np.isnan(said[order]))
    count = int(gaps[0]) if len(gaps) else len(said)
    said[order[count:]] = np.nan
    rarer, leans = _rarer(human, order[:count], outcome), "which may lean towards a tone"
    crossed = len(units.divisions) > 1 or bool(units.divisions and questions.groups is not None)
    why = None
    if questions.draws > 1 or (questions.asks[places] > 1).any():
        why = "a variant answers a question several times"
    elif questions.missing(ANSWERED)[places].any():
        why = "answers are missing"
    elif crossed:
        why = "texts cross other texts or groups"
    if why is not None:
        return Labelled(count, f"labels cannot correct the judge, {leans}, where {why}")
    if not count:
        return Labelled(0, f"no human labels correct the judge, {leans}")
    if count < LEAST_LABELS or rarer < LEAST_POSITIVES:
        return Labelled(
            count,
            f"labels of the first {count} questions do not suffice to correct the judge, {leans}: {LEAST_LABELS} "
            f"questions with labels on both sides are needed, with {LEAST_POSITIVES} labels of the rarer value",
        )
    # A judge that gives numbers has a range.
    low, high = (0.0, 1.0) if outcome.value != "number" or outcome.limits is None else outcome.limits
    margin = float("nan") if outcome.margin is None else outcome.margin
    groups = units.divisions[0] if units.divisions else questions.groups
    return Labelled(count, None, corrected_difference(said, judge[0] - judge[1], high - low, margin, groups))


def _rarer(sides: tuple[Floats, Floats], first: npt.NDArray[np.int64], outcome: Outcome) -> float:
    """Return how many of the labels are of the rarer value, over both sides; all of them where they are numbers."""
    if outcome.value == "number":
        return 2.0 * len(first)
    true = float(sides[0][first].sum() + sides[1][first].sum())
    return min(true, 2 * len(first) - true)
