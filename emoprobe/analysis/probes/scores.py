"""How good a probe is: accuracy, balanced accuracy, AUROC, and intervals over samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from emoprobe.analysis.statistics import CONFIDENCE


@dataclass(frozen=True)
class Scores:
    """Scores of one probe over its held-out rows; AUROC is the mean over folds and, with more classes, one-vs-rest."""

    accuracy: float
    balanced_accuracy: float
    auroc: float


def scores(chances: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> Scores:
    """Score held-out class probabilities (n, classes); rows with label −1 do not count."""
    known = labels >= 0
    guesses, truth = chances[known].argmax(1), labels[known]
    if not len(truth):
        return Scores(math.nan, math.nan, math.nan)
    recalls = [float((guesses[truth == value] == value).mean()) for value in np.unique(truth)]
    return Scores(float((guesses == truth).mean()), float(np.mean(recalls)), auroc(chances, labels, folds))


def auroc(chances: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> float:
    """Area under the ROC curve: within each fold, one class against the rest, averaged over both.

    Scores of different folds come from different probes and are not compared with each other: pooling them would bias
    the area downwards where there is no signal.
    """
    total = weight = 0.0
    for fold in np.unique(folds):
        rows = (folds == fold) & (labels >= 0)
        positive = labels[rows, None] == np.arange(chances.shape[1])
        n_positive, n = positive.sum(0), int(rows.sum())
        both = (n_positive > 0) & (n_positive < n)
        if not both.any():
            continue
        ranks = rankdata(chances[rows][:, both], axis=0)
        n_positive = n_positive[both]
        u = (ranks * positive[:, both]).sum(0) - n_positive * (n_positive + 1) / 2
        total += n * float((u / (n_positive * (n - n_positive))).sum())
        weight += n * len(n_positive)
    return total / weight if weight else math.nan


def bootstrap_counts(groups: np.ndarray, folds: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """How often each bootstrap draws each row, (resamples, n): samples are drawn whole, within folds."""
    generator = np.random.default_rng(seed)
    counts = np.zeros((resamples, len(groups)), dtype=np.float32)
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        names, place = np.unique(groups[rows], return_inverse=True)
        drawn = generator.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
        counts[:, rows] = drawn[:, place]
    return counts


def auroc_interval(
    chances: np.ndarray, labels: np.ndarray, folds: np.ndarray, counts: np.ndarray
) -> tuple[float, float]:
    """The 95 % interval of `auroc`: percentiles over bootstraps that `bootstrap_counts` drew, widened for folds.

    Drawing held-out samples anew leaves the probes as they are, but those of different folds share most of their
    training rows, so their errors go together. With k folds, the correction of Nadeau & Bengio (2003) widens the
    interval about the estimate by √(1 + k / (k − 1)). Without it, intervals of 40 samples cover the truth 80 % of the
    time, not 95 %.
    """
    total = np.zeros(len(counts))
    weight = np.zeros(len(counts))
    for fold in np.unique(folds):
        rows = np.flatnonzero((folds == fold) & (labels >= 0))
        drawn = counts[:, rows]
        for value in range(chances.shape[1]):
            positive = labels[rows] == value
            if not 0 < positive.sum() < len(rows):
                continue
            order = np.argsort(chances[rows, value], kind="stable")
            ordered = chances[rows, value][order]
            up = drawn[:, order] * positive[order]
            down = drawn[:, order] * ~positive[order]
            below = np.cumsum(down, axis=1)
            # Ties count half: rows of equal chance see the negatives before their run, and half of those in it.
            starts = np.r_[0, np.flatnonzero(np.diff(ordered)) + 1]
            run = np.repeat(np.arange(len(starts)), np.diff(np.r_[starts, len(ordered)]))
            ends = np.r_[starts[1:], len(ordered)] - 1
            before = np.concatenate([np.zeros((len(counts), 1), below.dtype), below[:, ends[:-1]]], axis=1)
            inside = (before + below[:, ends]) / 2
            wins = (up * inside[:, run]).sum(1)
            pairs = up.sum(1) * down.sum(1)
            good = pairs > 0
            total[good] += len(rows) * wins[good] / pairs[good]
            weight[good] += len(rows)
    areas = total[weight > 0] / weight[weight > 0]
    if not len(areas):
        return math.nan, math.nan
    low, high = np.quantile(areas, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    k = len(np.unique(folds[labels >= 0]))
    widening = math.sqrt(1 + k / (k - 1)) if k > 1 else 1.0
    area = auroc(chances, labels, folds)
    return max(0.0, area - widening * (area - float(low))), min(1.0, area + widening * (float(high) - area))
