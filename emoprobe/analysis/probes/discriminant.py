"""Regularised linear discriminants of many cells and training sets at once.

The probe is Fisher's discriminant, w = S⁻¹ δ: δ is a difference of means over the training rows, S their covariance
within variants, drawn to a multiple of the identity, (1 − γ) S + γ tr(S)/d · I (Friedman 1989). S needs no label, so a
decomposition serves every permutation of the labels; at γ = 1 the probe is a plain difference of means.

Where a cell has no more rows than features, w lies in the span of the rows, and everything is computed from their inner
products K: one inverse (K + λI)⁻¹ of all rows serves every training set, from which the rows that it leaves out and the
means of its variants are removed by Woodbury's identity. That takes one λ for all training sets of a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emoprobe.analysis.probes.row_codes import RowCodes

ROUNDING = 4 * torch.finfo(torch.float32).eps
JITTER = 1e-6  # the least variance within variants that is not rounding, of features of unit variance
FLAT = 1e-6  # a column with a deviation below this share of its mean is constant up to rounding
STRIP = 512  # rows of K that are computed together; the rest follows from its symmetry


@dataclass(frozen=True)
class Cells:
    """The features of some cells, each of unit variance, and vectors that are mixtures of their rows.

    A vector is (cells, r, k): r = d coordinates where there are more rows than features, and otherwise the weights of
    the r = n rows in it, which all cells can share (1, n, k). Either way `x[:, rows] @ vector`, with `x` (cells, n, r),
    is the inner product of rows with it. `scale` (cells, d) and `features` (cells, n, d; None: r = d) lead vectors back
    to the raw features.
    """

    x: torch.Tensor
    d: int
    scale: torch.Tensor
    features: torch.Tensor | None

    @classmethod
    @torch.no_grad()
    def of(cls, features: torch.Tensor) -> Cells:
        """Scale features (cells, n, d), float32, without a look at any label."""
        mean = features.mean(1, keepdim=True)
        x = features - mean
        deviation = torch.linalg.vector_norm(x, dim=1, keepdim=True) / x.shape[1] ** 0.5
        flat = deviation <= FLAT * mean.abs().clamp(min=FLAT)
        scale = torch.where(flat, 0.0, 1.0 / deviation.clamp(min=torch.finfo(features.dtype).tiny))
        x *= scale
        n, d = x.shape[1:]
        return cls(x, d, scale[:, 0], None) if n > d else cls(_inner(x), d, scale[:, 0], x)

    def mix(self, mixing: torch.Tensor) -> torch.Tensor:
        """Return mixtures of the rows as vectors, of weights (n, k)."""
        return (mixing.T @ self.x).mT if self.features is None else mixing[None]

    def raw(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors (cells, …, r, k) as weights of the raw features, (cells, …, d, k)."""
        columns = vectors.movedim(-2, 1)
        flat = columns.flatten(2)
        # The few columns come first: a product with a transposed matrix takes five times as long.
        raw = (flat if self.features is None else (flat.mT @ self.features).mT) * self.scale[..., None]
        return raw.view(len(raw), self.d, *columns.shape[2:]).movedim(1, -2)


def _inner(x: torch.Tensor) -> torch.Tensor:
    """Inner products (cells, n, n) of rows (cells, n, d)."""
    inner = x.new_empty((len(x), x.shape[1], x.shape[1]))
    for begin in range(0, x.shape[1], STRIP):
        end = begin + STRIP
        inner[:, begin:end, :end] = x[:, begin:end] @ x[:, :end].mT
        inner[:, :begin, begin:end] = inner[:, begin:end, :begin].mT
    return inner


def sums_by(codes: torch.Tensor, x: torch.Tensor, count: int) -> torch.Tensor:
    """Sums of the rows of x (cells, n, r) that have a code (n) from 0 to `count`, (cells, count, r)."""
    if x.is_cuda:  # where `index_add_` adds in an order of its own, so that the last digits would change
        return (codes == torch.arange(count)[:, None]).to(x.dtype) @ x
    return x.new_zeros((len(x), count, x.shape[2])).index_add_(1, codes, x)


@dataclass(frozen=True)
class Covariance:
    """S of all rows of some cells, of which training sets take a part.

    `codes` (n) are the variants of rows, `count` how many there are. S times the number of rows, over `factor`,
    is the scatter within variants with λ, `level` (cells), on its diagonal; where it is `plain`, at γ = 1, S is
    `factor` times the identity. `x` (cells, n, r) gives scores: `x[:, rows] @ weights`, with weights that
    `TrainingMoments.solve` returns. Where vectors mix rows it is K (K + λI)⁻¹ = I − λ (K + λI)⁻¹, and `left` (cells, n)
    the diagonal of what is taken from I, which it would hold in few digits.
    """

    cells: Cells
    codes: np.ndarray
    count: int
    plain: bool
    factor: torch.Tensor
    level: torch.Tensor
    x: torch.Tensor
    left: torch.Tensor | None

    @classmethod
    @torch.no_grad()
    def of(cls, cells: Cells, codes: np.ndarray, count: int, shrinkage: float, folds: int) -> Covariance:
        """Decompose what all training sets have in common.

        Args:
            cells: the features.
            codes: what rows have a mean in common, (n,), from 0.
            count: how many codes there are.
            shrinkage: γ in (0, 1].
            folds: γ holds for the rows of all folds but one.
        """
        x = cells.x
        members = torch.as_tensor(np.eye(count, dtype=np.float32)[:, codes])
        means = members / members.sum(1, keepdim=True).clamp(min=1).sqrt()
        if cells.features is None:
            whole = x.square().sum((1, 2))
            within = whole - (means @ x).square().sum((1, 2))
        else:
            whole = x.diagonal(dim1=1, dim2=2).sum(1)
            within = whole - ((means @ x) * means).sum((1, 2))
        variance = (within / (cells.d * len(codes))).clamp(min=JITTER)
        if shrinkage == 1:
            return cls(cells, codes, count, True, variance, variance, x, None)
        factor = x.new_tensor([1 - shrinkage])
        # Where rows hardly vary within variants, what is left of the differences is rounding, which may be indefinite.
        trained = len(codes) * (1 - 1 / max(2, folds))
        level = torch.maximum(shrinkage / factor * trained * variance, ROUNDING * whole)
        if cells.features is None:
            return cls(cells, codes, count, False, factor, level, x, None)
        gram = x.clone()
        gram.diagonal(dim1=1, dim2=2).add_(level[:, None])
        # It is symmetric, and its transpose has the rows one after another.
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(gram)).mT.mul_(-level[:, None, None])
        left = -inverse.diagonal(dim1=1, dim2=2)
        inverse.diagonal(dim1=1, dim2=2).add_(1.0)
        inverse[whole == 0], left[whole == 0] = 0.0, 1.0  # rows without any difference, which rounding would make
        return cls(cells, codes, count, False, factor, level, inverse, left)


@dataclass(frozen=True)
class Removed:
    """What a training set removes from the covariance of all rows of some cells, by Woodbury's identity.

    `out` are the rows that it leaves out, `lifted` (codes, n) the means of its variants as combinations of rows,
    `reach` (cells, rows out and codes, n) their products with all rows, `root` the Cholesky factor of what is inverted.
    """

    out: torch.Tensor
    lifted: torch.Tensor
    reach: torch.Tensor
    root: torch.Tensor

    def solve(self, vectors: torch.Tensor) -> torch.Tensor:
        """Add to vectors (cells, n, k) what the inverse of the training set has besides that of all rows."""
        removed = torch.cholesky_solve(self.reach @ vectors, self.root)
        weights = vectors + self.lifted.mT @ removed[:, len(self.out) :]
        weights[:, self.out] += removed[:, : len(self.out)]
        return weights


@dataclass(frozen=True)
class TrainingMoments:
    """Covariances and means of training sets.

    `means` is (cells, sets, codes, r), vectors of the variants in each training set, and `averages` (sets, codes, n)
    the weights of rows in them, 0 for a mean of none. `sets` has a Cholesky factor of S for each training set or, where
    vectors mix rows, what it removes from that of all rows; it is empty at γ = 1.
    """

    covariance: Covariance
    means: torch.Tensor
    averages: torch.Tensor
    sets: list[torch.Tensor] | list[Removed]

    @property
    def x(self) -> torch.Tensor:
        """`x` of the covariance, (cells, n, r), whose product with weights are the scores of rows."""
        return self.covariance.x

    def solve(self, number: int, vectors: torch.Tensor) -> torch.Tensor:
        """Weights: S⁻¹ of one training set times vectors (cells, r, k), (cells, r, k)."""
        if self.covariance.plain:
            return vectors / self.covariance.factor[:, None, None]
        vectors = vectors * (self.averages[number] > 0).sum() / self.covariance.factor
        part = self.sets[number]
        return part.solve(vectors) if isinstance(part, Removed) else torch.cholesky_solve(vectors, part)

    def weights(self, sets: int, codes: np.ndarray | slice = slice(None)) -> torch.Tensor:
        """S⁻¹ times the means of some codes in the first training sets, (cells, sets, r, codes)."""
        return torch.stack([self.solve(number, self.means[:, number, codes].mT) for number in range(sets)], 1)

    def rows(self, rows: np.ndarray) -> torch.Tensor:
        """`x` of some rows, given in ascending order; all of them are no copy."""
        return self.x if len(rows) == self.x.shape[1] else self.x[:, rows]

    def raw(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights (cells, …, r, k) for the raw features, up to a factor for each cell, (cells, …, d, k)."""
        covariance = self.covariance
        if covariance.left is not None:
            flat = weights.movedim(-2, 1)
            scores = (self.x @ flat.flatten(2)).view(flat.shape).movedim(1, -2)
            weights = weights - scores
        return covariance.cells.raw(weights)


def variant_moments(cells: Cells, design: RowCodes, shrinkage: float) -> TrainingMoments:
    """Means of all variants, by their codes, and the covariance around them, in every training set."""
    covariance = Covariance.of(cells, design.variant, len(design.variants), shrinkage, design.folds)
    return moments(covariance, design.fold, design.left_out)


@torch.no_grad()
def moments(covariance: Covariance, fold: np.ndarray, left_out: Sequence[tuple[int, ...]]) -> TrainingMoments:
    """The covariance of each training set around the means of its codes.

    Args:
        covariance: that of all rows.
        fold: of each row, (n,), from 0.
        left_out: the folds that each training set leaves out.
    """
    count, codes, cells = covariance.count, covariance.codes, covariance.cells
    kept = torch.as_tensor(np.stack([~np.isin(fold, out) for out in left_out]))
    members = torch.as_tensor(np.eye(count, dtype=np.float32)[:, codes])
    rows = kept.float() @ members.T  # (sets, codes)
    averages = kept.float()[:, None] * members / rows.clamp(min=1.0)[..., None]
    folds, x = int(fold.max()) + 1, covariance.x
    place = torch.as_tensor(fold * count + codes)
    in_fold = torch.tensor([[float(one not in out) for one in range(folds)] for out in left_out])

    def sums() -> torch.Tensor:
        """Of the rows of `x`, by training set and code, (cells, sets, codes, r)."""
        parts = sums_by(place, x, folds * count)
        return (in_fold @ parts.view(len(x), folds, -1)).view(len(x), len(left_out), count, -1)

    if cells.features is None:
        means = sums() / rows.clamp(min=1.0)[..., None]
        if covariance.plain:
            return TrainingMoments(covariance, means, averages, [])
        inner = [x[:, fold == one].mT @ x[:, fold == one] for one in range(folds)]
        roots = _roots(covariance, inner, left_out, means * rows.sqrt()[..., None])
        return TrainingMoments(covariance, means, averages, roots)
    if covariance.left is None:
        return TrainingMoments(covariance, averages[None], averages, [])
    # In sums with 1, the diagonal of what is taken from I would lose the digits that count.
    diagonal = x.diagonal(dim1=1, dim2=2)
    diagonal.copy_(-covariance.left)
    negative = sums()
    diagonal += 1.0
    return TrainingMoments(
        covariance, averages[None], averages, _removed(x, averages, covariance.left, negative, kept, rows)
    )


def _roots(
    covariance: Covariance, inner: list[torch.Tensor], left_out: Sequence[tuple[int, ...]], weighted: torch.Tensor
) -> list[torch.Tensor]:
    """Cholesky factors of the scatter (cells, r, r) of each training set, from the inner products of each fold."""
    # One set at a time and in place: fresh memory for all of them would take longer to come by than to fill.
    whole, scatter = torch.stack(inner).sum(0), torch.empty_like(inner[0])
    roots = []
    for number, (first, *others) in enumerate(left_out):
        torch.sub(whole, inner[first], out=scatter)
        for fold in others:
            scatter -= inner[fold]
        scatter.baddbmm_(weighted[:, number].mT, weighted[:, number], alpha=-1)
        scatter.diagonal(dim1=1, dim2=2).add_(covariance.level[:, None])
        roots.append(torch.linalg.cholesky(scatter))
    return roots


def _removed(
    x: torch.Tensor, averages: torch.Tensor, left: torch.Tensor, sums: torch.Tensor, kept: torch.Tensor,
    rows: torch.Tensor,
) -> list[Removed]:  # fmt: skip
    """Decompose what each training set removes from the covariance of all rows: E′ λ (K + λI)⁻¹ E.

    E has a column for each row that is left out, and one of length 1 for each variant's mean of the others. `sums`
    (cells, sets, codes, n) are those of the rows of −λ (K + λI)⁻¹, whose diagonal is −`left`.
    """
    removed = []
    for number, inside in enumerate(kept):
        out, there = torch.nonzero(~inside)[:, 0], rows[number] > 0
        length = rows[number, there].sqrt()[:, None]
        lifted, negative = averages[number, there] * length, sums[:, number, there] / length
        reach = x[:, out]
        corner = -reach[:, :, out]
        corner.diagonal(dim1=1, dim2=2).copy_(left[:, out])
        side = -negative[:, :, out]
        whole = torch.cat([torch.cat([corner, side.mT], 2), torch.cat([side, -negative @ lifted.T], 2)], 1)
        removed.append(Removed(out, lifted, torch.cat([reach, lifted + negative], 1), torch.linalg.cholesky(whole)))
    return removed
