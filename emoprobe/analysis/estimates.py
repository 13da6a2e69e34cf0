"""Means and paired differences with an interval and p values of one method each.

A tone is known through its texts, each of which has several questions, so a difference is a mean over texts, and its
interval has one unit a text. Where each question has its own text, and where a sentence is about the texts used alone,
questions are the units. Questions of one group, such as a template, share what a tone does to it, so where there are
groups enough what they share widens every interval. All functions work along the last axis, the questions, so that a
simulation runs through the pipeline's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from emoprobe.analysis.statistics import CONFIDENCE, clopper_pearson

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

MIN_QUESTIONS = 8  # below this no interval is given
# Two texts that happen to agree say nothing of their spread: intervals over two cover 91 % where answers are few.
MIN_TEXTS = 3
# Where a share p of n units (questions, or texts) is flipped one way, none of them is with probability e^(-np): 6 % at
# np = 2.8. That is how far from an estimate of no flips at all the truth may be.
UNSEEN = 2.8
BISECTIONS = 30
# Flips are counted in whole ones. A quarter of one taken off keeps the size of the test below 5 % (4.9 % at most for n
# from 8 to 512 and discordance up to 0.9, by enumeration; 5.6 % without it), where half of one would cost more power.
CONTINUITY = 0.25


@dataclass(frozen=True)
class Estimates:
    """Estimates of one shape, NaN where too little is known.

    `low` and `high` end the interval, of 95 % unless asked otherwise; `p` tests for a difference from 0 (two-sided);
    `p_equivalent` for one that leaves the margin (two one-sided tests). All of an estimate come from one method.
    """

    value: Floats
    low: Floats
    high: Floats
    p: Floats
    p_equivalent: Floats

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Mask of the places with an interval."""
        known: npt.NDArray[np.bool_] = ~np.isnan(self.low)
        return known


def difference(
    differences: Floats,
    texts: Labels | None,
    other_texts: Labels | None,
    margin: float,
    share: bool = True,
    groups: Labels | None = None,
    confidence: float = CONFIDENCE,
    skewed: bool = False,
    unseen: npt.ArrayLike | None = None,
    other_groups: bool = False,
) -> Estimates:
    """The mean of paired differences, one a question.

    Args:
        differences: shape (…, n): variant minus reference; NaN where the question is missing.
        texts: shape (n,): which of the variant's texts each question has; None where it has one text, or none.
        other_texts: the same of the reference.
        margin: differences within it count as equivalent.
        share: the values are shares of right answers, in [-1, 1].
        groups: shape (n,): the group of each question; None where each stands for itself.
        confidence: of the interval.
        skewed: a t interval is widened to hold Hall's as well, which covers where few units make up most of a mean, and
            p-values are the larger ones of both. Shares of several texts always are.
        unseen: what a rare kind of units, of which none is here, may change the value by; None: 1 for shares, else 0.
        other_groups: the claim is about other groups as well, so that none of these may be of a rare kind.
    """
    differences = np.asarray(differences, dtype=float)
    one_text = texts is None and other_texts is None and groups is None
    if one_text and share and np.isin(differences[~np.isnan(differences)], (-1, 0, 1)).all():
        return _tango(differences, margin, confidence)
    limits = (-1.0, 1.0) if share else None
    return _student(differences, texts, other_texts, groups, margin, limits, confidence, skewed, unseen, other_groups)


def mean(
    values: Floats,
    texts: Labels | None,
    share: bool,
    groups: Labels | None = None,
    other_texts: Labels | None = None,
    other_groups: bool = False,
) -> Estimates:
    """The mean of one variant's values, one a question; arguments as of `difference`, in [0, 1] if `share`.

    The interval of a share of one text is Clopper and Pearson's (1934).
    """
    values = np.asarray(values, dtype=float)
    if texts is None and groups is None and share and np.isin(values[~np.isnan(values)], (0, 1)).all():
        known = (~np.isnan(values)).sum(axis=-1)
        right = np.nansum(values, axis=-1)
        low, high = clopper_pearson(right, known)
        nothing = np.full(np.shape(right), np.nan)
        few = known < MIN_QUESTIONS
        return Estimates(
            _ratio(right, known), np.where(few, np.nan, low), np.where(few, np.nan, high), nothing, nothing
        )
    limits = (0.0, 1.0) if share else None
    return _student(values, texts, other_texts, groups, np.nan, limits, other_groups=other_groups)


def _student(
    values: Floats,
    texts: Labels | None,
    other_texts: Labels | None,
    groups: Labels | None,
    margin: float,
    limits: tuple[float, float] | None,
    confidence: float = CONFIDENCE,
    skewed: bool = False,
    unseen: npt.ArrayLike | None = None,
    other_groups: bool = False,
) -> Estimates:
    """Student's t over texts, or over questions or groups of them where neither side has several texts.

    Where variant and reference have texts that are not in step, the variance is that of two-way clusters (Cameron,
    Gelbach & Miller 2011), with the degrees of freedom of the fewer texts. Groups of questions are crossed with texts
    in the same way, with the variance over texts as the least that it can be. Shares get a floor of the half width of
    `UNSEEN` / units, added in squares: no flips do not mean that there are none, and that no text breaks the answer
    does not mean that none does. What a text does can be skewed, so that shares over texts get Hall's interval as well.
    Both hold for groups where the claim is about others as well.
    """
    here = ~np.isnan(values)
    n = here.sum(axis=-1)
    value = _ratio(np.nansum(values, axis=-1), n)
    residuals = np.where(here, values - value[..., None], 0.0)
    least = MIN_TEXTS
    scored = texts if texts is not None else other_texts
    if scored is None:
        least = 2
        if groups is None:
            variance, units = _ratio((residuals**2).sum(axis=-1), n * (n - 1)), n
        else:
            variance, units = _clustered(residuals, here, groups)
    elif texts is not None and other_texts is not None:
        parts = [_clustered(residuals, here, labels) for labels in (texts, other_texts, _crossed(texts, other_texts))]
        (first, count), (second, other_count), (both, _) = parts
        variance = np.maximum(first + second - both, np.maximum(first, second))
        units = np.minimum(count, other_count)
        scored = texts if len(np.unique(texts)) <= len(np.unique(other_texts)) else other_texts
    else:
        variance, units = _clustered(residuals, here, scored)  # type: ignore[arg-type]
    seen = n if scored is None else units
    if groups is not None:
        units = np.minimum(units, _alike(here, groups))
        seen = np.minimum(seen, units) if other_groups else seen
        if scored is not None:
            crossed = _crossed(groups, *(labels for labels in (texts, other_texts) if labels is not None))
            shared = _clustered(residuals, here, groups)[0] - _clustered(residuals, here, crossed)[0]
            variance = variance + np.maximum(shared, 0)
    usable = (n >= MIN_QUESTIONS) & (units >= least)
    freedom = np.where(usable, units - 1, 1)
    quantile = special.stdtrit(freedom, (1 + confidence) / 2)
    if limits is not None or unseen is not None:
        change = 1.0 if unseen is None else np.asarray(unseen, dtype=float)
        variance = variance + (change * UNSEEN / (quantile * np.maximum(seen, 1))) ** 2
    error = np.sqrt(np.where(usable & (variance > 0), variance, np.nan))
    low, high = value - quantile * error, value + quantile * error
    hall = None
    if skewed or (limits is not None and (scored is not None or other_groups)):
        clusters = groups if scored is None else scored
        hall = _Hall.of(residuals if clusters is None else _sums(residuals, clusters), units)
        low = np.minimum(low, value - error * hall.inverse(quantile))
        high = np.maximum(high, value - error * hall.inverse(-quantile))
    if limits is not None:
        low, high = np.clip(low, *limits), np.clip(high, *limits)

    def above(bound: float) -> Floats:
        """P of a mean as large as this, where the true one is the bound."""
        statistic = (value - bound) / error
        least = statistic if hall is None else np.minimum(statistic, hall.symmetric(statistic))
        tail: Floats = special.stdtr(freedom, -least)
        return tail

    def below(bound: float) -> Floats:
        statistic = (value - bound) / error
        most = statistic if hall is None else np.maximum(statistic, hall.symmetric(statistic))
        tail: Floats = special.stdtr(freedom, most)
        return tail

    p = np.minimum(2 * np.minimum(above(0.0), below(0.0)), 1.0)
    return Estimates(value, low, high, p, np.maximum(above(-margin), below(margin)))


@dataclass(frozen=True)
class _Hall:
    """A cubic of a studentised mean that is symmetric, given the skewness of its scores (Hall 1992)."""

    n: Floats
    skewness: Floats

    @classmethod
    def of(cls, scores: Floats, units: Labels) -> _Hall:
        n = np.maximum(units, 1).astype(float)
        skewness = _ratio((scores**3).sum(axis=-1) / n, ((scores**2).sum(axis=-1) / n) ** 1.5)
        return cls(n, np.nan_to_num(skewness))

    def symmetric(self, statistic: Floats) -> Floats:
        """The cubic."""
        root, slope = np.sqrt(self.n), self.skewness
        scaled = statistic / root
        cubic: Floats = root * (scaled + slope * scaled**2 / 3 + slope**2 * scaled**3 / 27 + slope / (6 * self.n))
        return cubic

    def inverse(self, bound: Floats) -> Floats:
        """The studentised mean that the cubic makes of a bound."""
        flat = np.abs(self.skewness) <= 1e-6
        slope = np.where(flat, 1.0, self.skewness)
        cubic = 1 + slope * (bound / np.sqrt(self.n) - slope / (6 * self.n))
        bounds: Floats = np.where(flat, bound, np.sqrt(self.n) * 3 * (np.cbrt(cubic) - 1) / slope)
        return bounds


def whichever(estimates: Sequence[Estimates]) -> Estimates:
    """The first estimates, with an interval and p-values that hold for every one of them."""
    first, *others = estimates
    if not others:
        return first
    values = np.stack([each.value for each in estimates])
    p, p_equivalent = (np.max([getattr(each, name) for each in estimates], axis=0) for name in ("p", "p_equivalent"))
    one_way = (values > 0).all(axis=0) | (values < 0).all(axis=0)
    ends = np.min([each.low for each in estimates], axis=0), np.max([each.high for each in estimates], axis=0)
    return Estimates(first.value, *ends, np.where(one_way | np.isnan(p), p, 1.0), p_equivalent)


def _clustered(residuals: Floats, here: npt.NDArray[np.bool_], labels: Labels) -> tuple[Floats, Labels]:
    """The variance of a mean whose units are clusters of questions, and how many clusters have a question."""
    sums = _sums(residuals, labels)
    count = (_sums(here.astype(float), labels) > 0).sum(axis=-1)
    n = here.sum(axis=-1)
    return _ratio((sums**2).sum(axis=-1) * count, n.astype(float) ** 2 * (count - 1)), count


def _sums(values: Floats, labels: Labels) -> Floats:
    """Sums over the questions of each label, shape (…, labels)."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=labels[order[0]] - 1)) if len(labels) else order
    sums: Floats = np.add.reduceat(values[..., order], starts, axis=-1)
    return sums


def _alike(here: npt.NDArray[np.bool_], labels: Labels) -> Labels:
    """Return the effective number of clusters of equal size: n² / Σ n_g² (Kish 1965), rounded down."""
    sizes = _sums(here.astype(float), labels)
    # Equal sizes give a whole number, which rounding errors must not make one less.
    effective: Labels = np.nan_to_num(_ratio(sizes.sum(axis=-1) ** 2, (sizes**2).sum(axis=-1)) + 1e-9).astype(np.int64)
    return effective


def _crossed(*labels: Labels) -> Labels:
    """One label for each combination that occurs."""
    codes: Labels = np.unique(np.stack(labels), axis=1, return_inverse=True)[1].reshape(-1).astype(np.int64)
    return codes


def _tango(differences: Floats, margin: float, confidence: float) -> Estimates:
    """Score interval and tests of the difference of two paired shares (Tango 1998); at 0 it is McNemar's test.

    Both have the same correction for continuity, so that interval and p agree.
    """
    n = (~np.isnan(differences)).sum(axis=-1).astype(float)
    gained, lost = (differences == 1).sum(axis=-1).astype(float), (differences == -1).sum(axis=-1).astype(float)
    value = _ratio(gained - lost, n)
    quantile = float(stats.norm.ppf((1 + confidence) / 2))
    # Both ends at once: what is inside the interval, and what is outside of it.
    inside, outside = np.stack([value, value]), np.stack([np.full_like(value, -1), np.full_like(value, 1)])
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        within = np.abs(tango_score(gained, lost, n, middle, CONTINUITY)) <= quantile
        inside, outside = np.where(within, middle, inside), np.where(within, outside, middle)
    p = 2 * stats.norm.sf(np.abs(tango_score(gained, lost, n, np.zeros_like(value), CONTINUITY)))
    below = stats.norm.sf(tango_score(gained, lost, n, np.full_like(value, -margin), CONTINUITY))
    above = stats.norm.cdf(tango_score(gained, lost, n, np.full_like(value, margin), CONTINUITY))
    few = n < MIN_QUESTIONS
    equivalent = np.full_like(value, np.nan) if np.isnan(margin) else np.maximum(below, above)
    low, high, p, p_equivalent = (np.where(few, np.nan, ends) for ends in (outside[0], outside[1], p, equivalent))
    return Estimates(value, low, high, p, p_equivalent)


def tango_score(gained: Floats, lost: Floats, n: Floats, supposed: Floats, continuity: float = 0.0) -> Floats:
    """The score statistic of a supposed difference of two paired shares (Tango 1998), standard normal if it is true.

    Args:
        gained: pairs that only the first solves.
        lost: pairs that only the second solves.
        n: all pairs.
        supposed: the difference under test, in [-1, 1].
        continuity: pairs by which the distance from what is supposed is shortened.
    """
    linear = -gained - lost + (2 * n - gained + lost) * supposed
    constant = -lost * supposed * (1 - supposed)
    share = _ratio(np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0)) - linear, 4 * n)
    variance = n * (2 * share + supposed * (1 - supposed))
    distance = gained - lost - n * supposed
    distance = np.copysign(np.maximum(np.abs(distance) - continuity, 0), distance)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = distance / np.sqrt(np.maximum(variance, 0))
    certain = np.where(np.abs(distance) < 1e-9, 0.0, np.copysign(np.inf, distance))
    statistic: Floats = np.where(variance > 1e-12, score, certain)
    return statistic


def _ratio(above: npt.ArrayLike, below: npt.ArrayLike) -> Floats:
    """A quotient, NaN where it has none."""
    above, below = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(below > 0, above / below, np.nan)
