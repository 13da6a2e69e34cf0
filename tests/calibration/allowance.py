"""What a simulated share may be without contradicting the true one: exact binomial limits."""

from __future__ import annotations

from scipy import stats

from emoprobe.analysis.statistics import LEVEL, POWER

COVERAGE = 0.93  # the least that is wanted of a 95 % interval
CHANCE = 0.001  # of a limit to be passed although the true share is as it should be


def most(runs: int, share: float = LEVEL) -> float:
    """The largest share of so many runs that a true one of 5 % or less leads to, but for one time in 1,000."""
    return float(stats.binom.isf(CHANCE, runs, share)) / runs


def least(runs: int, share: float = POWER) -> float:
    """The smallest share of so many runs that a true one of 80 % or more leads to, but for one time in 1,000."""
    return float(stats.binom.ppf(CHANCE, runs, share)) / runs
