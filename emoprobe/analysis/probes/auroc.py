"""Areas under ROC curves, many at once, with the influence of each row."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from emoprobe.analysis.probes.probe_design import LEAST_UNITS
from emoprobe.analysis.statistics import LEVEL

PAIRWISE = 32  # rows up to which comparing every pair is faster than sorting


def wins(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """For each value (…, a) how many others (…, b) lie below it, ties counted half."""
    if others.shape[-1] <= PAIRWISE:
        return (0.5 + 0.5 * torch.sign(values[..., :, None] - others[..., None, :])).sum(-1)
    others, values = _sorted(others), values.contiguous()
    below = torch.searchsorted(others, values, right=False)
    return 0.5 * (below + torch.searchsorted(others, values, right=True)).to(values.dtype)


def _sorted(values: torch.Tensor) -> torch.Tensor:
    """Values in ascending order along the last dimension; NumPy sorts them ten times as fast as PyTorch on a CPU."""
    return values.sort(dim=-1).values if values.is_cuda else torch.from_numpy(np.sort(values.numpy(), axis=-1))


def _order(values: torch.Tensor) -> torch.Tensor:
    """The places of the values in ascending order along the last dimension."""
    return values.argsort(dim=-1) if values.is_cuda else torch.from_numpy(np.argsort(values.numpy(), axis=-1))


def labelled_auroc(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """`auroc` of scores (…, n) by labels of 0, 1 and −1 (left out), of the same shape or fewer leading dimensions."""
    order = _order(scores)
    values = scores.gather(-1, order)
    ordered = labels.expand(scores.shape).gather(-1, order)
    one, zero = (ordered == 1).to(scores.dtype), (ordered == 0).to(scores.dtype)
    first = torch.ones_like(values, dtype=torch.bool)  # of those that are equal
    first[..., 1:] = values[..., 1:] != values[..., :-1]
    above = (one * _before(zero, first)).sum(-1)
    below = (zero * _before(one, first)).sum(-1)
    pairs = one.sum(-1) * zero.sum(-1)
    return torch.where(pairs > 0, 0.5 + 0.5 * (above - below) / pairs.clamp(min=1.0), torch.nan)


def _before(counted: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    """Count the values before each place, excluding equal ones; `first` marks where equal ones begin."""
    return torch.where(first, counted.cumsum(-1) - counted, 0.0).cummax(-1).values


def influences(scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return each row's contribution to the error of the area (the placements of DeLong et al. 1988), (…, n).

    Scores are (…, n); labels (n) are 0 or 1, and both occur. The sum of squares over independent groups of rows is the
    variance of the area (Obuchowski 1997).
    """
    one, zero = labels == 1, labels == 0
    total = torch.zeros_like(scores)
    above = wins(scores[..., one], scores[..., zero])
    below = wins(-scores[..., zero], -scores[..., one])
    n_one, n_zero = int(one.sum()), int(zero.sum())
    area = above.mean(-1, keepdim=True) / n_zero
    total[..., one] = (above / n_zero - area) / n_one
    total[..., zero] = (below / n_one - area) / n_zero
    return total


class Interval(NamedTuple):
    """The 95 % interval of an estimate, and the two-sided p of its being 0; NaN where there is none."""

    low: float
    high: float
    p: float


def interval(estimate: float, by_group: np.ndarray, folds: int) -> Interval:
    """For a cross-validated mean, from the jackknifed influence of each group; NaN below 20 groups.

    Probes of different folds share most of their training rows, so their errors go together: the variance is widened
    for k folds by the correction of Nadeau & Bengio (2003), 1 + k / (k − 1).
    """
    count = len(by_group)
    if count < LEAST_UNITS or not math.isfinite(estimate):
        return Interval(math.nan, math.nan, math.nan)
    error = math.sqrt(float((by_group**2).sum()) * (1 + folds / (folds - 1)))
    reach = float(stats.t.ppf(1 - LEVEL / 2, count - folds)) * error
    p = 2 * float(stats.t.sf(abs(estimate) / error, count - folds)) if error > 0 else float(estimate == 0)
    return Interval(estimate - reach, estimate + reach, p)
