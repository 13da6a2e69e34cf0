"""Differences of what a judge measures, corrected by human labels: prediction-powered inference (PPI++).

Angelopoulos, Bates, Fannjiang, Jordan and Zrnic, Science 382, 669 (2023), and Angelopoulos, Duchi and Zrnic,
arXiv:2311.01453 (2023), for the mean of paired differences. The labelled questions are a random part of all. The mean
of the judge over all of them, times λ, plus the mean over the labelled ones of what people say beyond λ times the
judge, has the expectation of what people say, however the judge errs.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from emoprobe.analysis.estimates import Estimates, Floats, Labels
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
