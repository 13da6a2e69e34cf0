"""Intervals and tests, by the libraries that are known for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.metrics import cohen_kappa_score
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

CONFIDENCE = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; NaN where there is nothing to estimate from."""

    value: float
    low: float
    high: float


NOTHING = Estimate(math.nan, math.nan, math.nan)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a proportion (Wilson 1927); the whole range where n is 0."""
    if n == 0:
        return 0.0, 1.0
    low, high = proportion_confint(successes, n, alpha=1 - CONFIDENCE, method="wilson")
    return float(low), float(high)


def exact_mcnemar(gained: int, lost: int) -> float:
    """Two-sided p value of the exact McNemar test: whether flips in either direction are equally likely.

    Args:
        gained: pairs that only the second condition solves.
        lost: pairs that only the first solves.
    """
    return float(mcnemar([[0, gained], [lost, 0]], exact=True).pvalue)


def holm(p_values: list[float]) -> list[float]:
    """P values corrected over their family (Holm 1979); NaN stays NaN and does not count."""
    known = [number for number, p in enumerate(p_values) if not math.isnan(p)]
    corrected = [math.nan] * len(p_values)
    if known:
        for number, p in zip(known, multipletests([p_values[i] for i in known], method="holm")[1], strict=True):
            corrected[number] = float(p)
    return corrected


def mean_interval(values: np.ndarray, resamples: int, seed: int) -> Estimate:
    """Mean of one value per sample with its percentile bootstrap interval over samples (Efron 1979)."""
    values = np.asarray(values, dtype=float)
    if len(values) == 0:
        return NOTHING
    mean = float(values.mean())
    if len(values) < 2 or np.ptp(values) == 0:
        return Estimate(mean, mean if len(values) > 1 else math.nan, mean if len(values) > 1 else math.nan)
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(mean, float(found.low), float(found.high))


def wilcoxon(differences: np.ndarray) -> float:
    """Two-sided p value of the Wilcoxon signed-rank test; 1 where nothing differs, NaN without pairs."""
    differences = np.asarray(differences, dtype=float)
    if len(differences) == 0:
        return math.nan
    if not np.any(differences):
        return 1.0
    return float(stats.wilcoxon(differences).pvalue)


def kappa(first: np.ndarray, second: np.ndarray) -> float:
    """Cohen's κ of two sequences of judgements (Cohen 1960); NaN where both are constant and equal."""
    first, second = np.asarray(first, dtype=int), np.asarray(second, dtype=int)
    if len(first) == 0 or len({*first.tolist(), *second.tolist()}) < 2:
        return math.nan
    return float(cohen_kappa_score(first, second, labels=[0, 1]))


def detectable_difference(n: int, discordant: float, tests: int) -> float:
    """The smallest paired difference of two accuracies that n samples show with 80 % power.

    Solved from the normal approximation of the McNemar test (Miettinen 1968), at 5 % two-sided, Bonferroni-corrected
    for `tests` comparisons. It cannot exceed the share of discordant pairs, as every net change is made of flips.

    Args:
        n: samples.
        discordant: share of samples in which the two conditions differ; small shares are taken as one pair in n.
        tests: comparisons of the family.
    """
    if n == 0:
        return math.nan
    alpha = (1 - CONFIDENCE) / max(1, tests)
    z_alpha, z_beta = stats.norm.ppf(1 - alpha / 2), stats.norm.ppf(POWER)
    share = min(1.0, max(discordant, 1 / n))
    # n d² = (z_α √ψ + z_β √(ψ − d²))², ψ the share of discordant pairs: fixed point in d.
    difference = float(z_alpha + z_beta) * math.sqrt(share / n)
    for _ in range(50):
        inside = max(0.0, share - difference**2)
        difference = float(z_alpha * math.sqrt(share) + z_beta * math.sqrt(inside)) / math.sqrt(n)
    return min(1.0, difference)
