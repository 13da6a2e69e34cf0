"""Many L2-regularised logistic regressions on the same features at once.

Each problem minimises C · Σ loss + ½ ‖w‖², with an intercept that is not penalised: scikit-learn's LogisticRegression,
sigmoid for two classes, softmax for more. Problems share the features, so that their products with them are one large
matrix product instead of many small ones. In the eigenbasis of the features' Gram matrix, Böhning's (1992) bound on the
Hessian is diagonal; a gradient step scaled by it, with Nesterov's momentum and restarts (O'Donoghue & Candès 2015),
takes the place of the Newton step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

BOUNDS = {2: 0.25}  # of the Hessian's eigenvalues in the logits; ½ for more than two classes
SLACK = 1.15  # the bound holds for centred features; rows left out of a problem shift its centre a little
CHECK_EVERY = 5


@dataclass(frozen=True)
class Problem:
    """One regression: integer labels (−1: the row is left out), the number of classes, the inverse strength C."""

    labels: torch.Tensor
    classes: int
    strength: float

    @property
    def columns(self) -> int:
        """Columns of logits."""
        return 1 if self.classes == 2 else self.classes


@dataclass(frozen=True)
class Basis:
    """The eigenbasis of a cell's features: `rotation` (d, r) and `spectrum` (r), of all standardised rows."""

    rotation: torch.Tensor
    spectrum: torch.Tensor

    @classmethod
    def of(cls, features: torch.Tensor) -> Basis:
        """Decompose features (n, d), once for all folds and targets of a cell.

        With fewer rows than columns the rows span the space, and the smaller Gram matrix is decomposed.
        """
        standard = standardise(features, features)
        n, d = standard.shape
        if d <= n:
            spectrum, rotation = torch.linalg.eigh(standard.T @ standard)
        else:
            spectrum, vectors = torch.linalg.eigh(standard @ standard.T)
            keep = spectrum > spectrum[-1] * 1e-6
            spectrum = spectrum[keep]
            rotation = standard.T @ vectors[:, keep] / spectrum.clamp(min=1e-12).sqrt()
        return cls(rotation, spectrum.clamp(min=0.0) / n)


def standardise(features: torch.Tensor, training: torch.Tensor) -> torch.Tensor:
    """Features (n, d) with the training rows' mean and standard deviation taken out; constant ones become 0."""
    deviation, mean = torch.std_mean(training, dim=0, correction=0)
    # A column that is constant up to rounding carries nothing.
    constant = deviation <= 1e-6 * mean.abs().clamp(min=1e-6)
    return (features - mean) / torch.where(constant, torch.inf, deviation)


@torch.no_grad()
def fit(
    features: torch.Tensor, spectrum: torch.Tensor, problems: Sequence[Problem], iterations: int, tolerance: float
) -> list[torch.Tensor]:
    """Solve problems on rotated, standardised features.

    Args:
        features: (n, r), in the eigenbasis.
        spectrum: (r), mean squares along its axes.
        problems: what to solve; their labels have n entries.
        iterations: at most.
        tolerance: change of the weights, relative to their norm, at which a problem counts as solved.

    Returns:
        for each problem (r + 1, columns), the intercepts in the last row.
    """
    solved: list[torch.Tensor] = [torch.empty(0)] * len(problems)
    # Problems with equally many columns stand side by side, so that each nonlinearity is one call.
    numbers = sorted(range(len(problems)), key=lambda number: problems[number].columns)
    batch = _Batch(features, spectrum, [problems[number] for number in numbers])
    for iteration in range(1, iterations + 1):
        batch.step()
        if iteration % CHECK_EVERY and iteration != iterations:
            continue
        done = batch.converged(tolerance) if iteration < iterations else [True] * len(numbers)
        for place, out in enumerate(done):
            if out:
                solved[numbers[place]] = batch.weights_of(place)
        numbers = [number for number, out in zip(numbers, done, strict=True) if not out]
        if not numbers:
            break
        if any(done):
            batch.keep([not out for out in done])
    return solved


def probabilities(
    features: torch.Tensor, weights: Sequence[torch.Tensor], problems: Sequence[Problem]
) -> list[torch.Tensor]:
    """Class probabilities (n, classes) of each problem, out of the weights that `fit` gave."""
    logits = features @ torch.cat([each[:-1] for each in weights], dim=1) + torch.cat([each[-1] for each in weights])
    found, start = [], 0
    for problem in problems:
        part = logits[:, start : start + problem.columns]
        start += problem.columns
        if problem.columns == 1:
            chance = part.sigmoid()
            found.append(torch.cat([1 - chance, chance], dim=1))
        else:
            found.append(part.softmax(dim=1))
    return found


class _Batch:
    """Problems on their way to a solution.

    A logit is a row of n values, not a column: products of few rows with a large matrix are several times faster.
    """

    def __init__(self, features: torch.Tensor, spectrum: torch.Tensor, problems: Sequence[Problem]) -> None:
        self._features, self._transposed = features, features.T.contiguous()
        self._widths = [problem.columns for problem in problems]
        known = torch.stack([problem.labels >= 0 for problem in problems])
        self._complete = bool(known.all())
        repeats = torch.tensor(self._widths)
        self._weight = known.float().repeat_interleave(repeats, dim=0)
        self._target = torch.cat([_targets(problem) for problem in problems])
        bound = torch.tensor([BOUNDS.get(problem.classes, 0.5) for problem in problems]).repeat_interleave(repeats)
        self._penalty = torch.tensor([1.0 / problem.strength for problem in problems]).repeat_interleave(repeats)[
            :, None
        ]
        curvature = SLACK * bound[:, None]
        self._step = 1.0 / (curvature * len(features) * spectrum + self._penalty)
        self._intercept_step = 1.0 / (curvature[:, 0] * self._weight.sum(1).clamp(min=1.0))
        self._current = torch.zeros((len(bound), features.shape[1] + 1))
        self._ahead = self._current.clone()
        self._change = torch.zeros_like(self._current)
        self._momentum = torch.ones(len(bound))

    def step(self) -> None:
        """One accelerated gradient step of every problem."""
        ahead = self._ahead
        residual = torch.addmm(ahead[:, -1:], ahead[:, :-1], self._transposed)
        self._chances(residual)
        residual.sub_(self._target)
        if not self._complete:
            residual.mul_(self._weight)
        following = ahead.clone()
        gradient = torch.addcmul(residual @ self._features, ahead[:, :-1], self._penalty)
        following[:, :-1].addcmul_(gradient, self._step, value=-1)
        following[:, -1] -= residual.sum(1) * self._intercept_step
        self._change = following - self._current
        # Where the step goes against the change, momentum has overshot and starts anew.
        overshot = ((ahead - following) * self._change).sum(1) > 0
        after = (1 + (1 + 4 * self._momentum**2).sqrt()) / 2
        factor = torch.where(overshot, 0.0, (self._momentum - 1) / after)
        self._momentum = torch.where(overshot, 1.0, after)
        self._ahead = torch.addcmul(following, factor[:, None], self._change)
        self._current = following

    def _chances(self, logits: torch.Tensor) -> None:
        """Turn logits into probabilities in place, one call for all problems of a width."""
        start = 0
        for width in dict.fromkeys(self._widths):
            end = start + width * self._widths.count(width)
            part = logits[start:end]
            if width == 1:
                part.sigmoid_()
            else:
                part.copy_(part.view(-1, width, logits.shape[1]).softmax(dim=1).view_as(part))
            start = end

    def converged(self, tolerance: float) -> list[bool]:
        """Which problems have come to rest."""
        change, size = (
            [float(part.sum()) for part in torch.split(value.square().sum(1), self._widths)]
            for value in (self._change, self._current)
        )
        return [c <= tolerance**2 * max(s, 1e-12) for c, s in zip(change, size, strict=True)]

    def weights_of(self, place: int) -> torch.Tensor:
        """The weights of one problem, (r + 1, columns)."""
        start = sum(self._widths[:place])
        return self._current[start : start + self._widths[place]].T.contiguous()

    def keep(self, problems: list[bool]) -> None:
        """Go on with some problems only."""
        rows = torch.tensor(problems).repeat_interleave(torch.tensor(self._widths))
        for name in (
            "_weight", "_target", "_penalty", "_step", "_intercept_step", "_current", "_ahead", "_change", "_momentum",
        ):  # fmt: skip
            setattr(self, name, getattr(self, name)[rows])
        self._widths = [width for width, kept in zip(self._widths, problems, strict=True) if kept]


def _targets(problem: Problem) -> torch.Tensor:
    """(columns, n) of zeros and ones."""
    if problem.columns == 1:
        return (problem.labels == 1).float()[None]
    return (problem.labels[None] == torch.arange(problem.classes)[:, None]).float()
