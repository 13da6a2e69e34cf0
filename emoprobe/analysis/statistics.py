"""Textbook statistics, by the libraries that are known for them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import stats

CONFIDENCE = 0.95
LEVEL = 0.05  # of every family of tests
POWER = 0.8


def clopper_pearson(
    successes: npt.ArrayLike, n: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The exact 95 % interval of a proportion (Clopper & Pearson 1934); the whole range where n is 0."""
    successes, n = np.asarray(successes, dtype=float), np.asarray(n, dtype=float)
    tail = (1 - CONFIDENCE) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(successes > 0, stats.beta.ppf(tail, successes, n - successes + 1), 0.0)
        high = np.where(successes < n, stats.beta.isf(tail, successes + 1, n - successes), 1.0)
    return low, high


def holm(p_values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """P values corrected over their family (Holm 1979); NaN stays NaN and does not count."""
    # By hand: statsmodels' `multipletests` collects garbage at every call, which takes longer than all the rest.
    p = np.asarray(p_values, dtype=float)
    corrected = np.full(p.shape, math.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected


def kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's κ of two sequences of judgements (Cohen 1960); NaN where both are constant and equal."""
    first, second = np.asarray(first, dtype=int), np.asarray(second, dtype=int)
    if len(first) == 0 or len({*first.tolist(), *second.tolist()}) < 2:
        return math.nan
    from sklearn.metrics import cohen_kappa_score  # takes longer to import than all else here together

    return float(cohen_kappa_score(first, second, labels=[0, 1]))
