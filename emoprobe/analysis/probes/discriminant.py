"""Regularised linear discriminants of many cells and training sets at once.

The probe is Fisher's discriminant, w = S⁻¹ δ: δ is a difference of means over the training rows, S their covariance
within variants, drawn to a multiple of the identity, (1 − γ) S + γ tr(S)/d · I (Friedman 1989). S needs no label, so a
decomposition serves every permutation of the labels; at γ = 1 the probe is a plain difference of means.

Where a cell has no more rows than features, w lies in the span of the rows, and everything is computed from their inner
products K: one inverse (K + λI)⁻¹ of all rows serves every training set, from which the rows that it leaves out and the
means of its variants are removed by Woodbury's identity. That takes one λ for all training sets of a cell. What is
solved for each row that is left out is the score of that row as well, so that no product with the weights is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emoprobe.analysis.probes.cells import Cells, Places
from emoprobe.analysis.probes.row_codes import RowCodes

ROUNDING = 4 * torch.finfo(torch.float32).eps
JITTER = 1e-6  # the least variance within variants that is not rounding, of features of unit variance


def sums_by(codes: torch.Tensor, x: torch.Tensor, count: int) -> torch.Tensor:
    """Sums of the rows of x (cells, n, r) that have a code (n) from 0 to `count`, (cells, count, r)."""
    if x.is_cuda:  # where `index_add_` adds in an order of its own, so that the last digits would change
        return (codes == torch.arange(count)[:, None]).to(x.dtype) @ x
    return x.new_zeros((len(x), count, x.shape[2])).index_add_(1, codes, x)


@dataclass(frozen=True)
class Covariance:
    """S of all rows of some cells, of which training sets take a part.

    `codes` (n) are the variants of rows in their order, `count` how many there are. S times the number of rows, over
    `factor`, is the scatter within variants with λ, `level` (cells), on its diagonal; where it is `plain`, at γ = 1, S
    is `factor` times the identity. `x` (cells, n, r) gives scores: `x @ weights`, with weights that
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
        x, codes = cells.x, codes[cells.order]
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
        diagonal = x.diagonal(dim1=1, dim2=2)
        squares = diagonal.clone()
        diagonal += level[:, None]
        root = torch.linalg.cholesky(x)
        diagonal.copy_(squares)
        # It is symmetric, and its transpose has the rows one after another.
        inverse = torch.cholesky_inverse(root).mT.mul_(-level[:, None, None])
        left = -inverse.diagonal(dim1=1, dim2=2)
        inverse.diagonal(dim1=1, dim2=2).add_(1.0)
        inverse[whole == 0], left[whole == 0] = 0.0, 1.0  # rows without any difference, which rounding would make
        return cls(cells, codes, count, False, factor, level, inverse, left)

    def corner(self, places: Places) -> torch.Tensor:
        """What is taken from I in `x` where the rows and columns of some rows meet, (cells, rows, rows)."""
        assert self.left is not None
        corner = self.x[:, places][:, :, places].neg()
        corner.diagonal(dim1=1, dim2=2).copy_(self.left[:, places])
        return corner


@dataclass(frozen=True)
class Solution:
    """S⁻¹ of a training set times vectors: `weights` (cells, r, k), and the scores that they give.

    `scores` are those of the rows that the training set leaves out, (cells, rows, k) for each fold.
    """

    weights: torch.Tensor
    scores: dict[int, torch.Tensor]


@dataclass(frozen=True)
class Removed:
    """What a training set removes from the covariance of all rows of some cells, by Woodbury's identity.

    `lifted` (codes, n) are the means of its variants as combinations of rows, `pull` (cells, codes, n) their products
    with all rows, and `root` the Cholesky factor of what is inverted, with the rows that are left out first.
    """

    lifted: torch.Tensor
    pull: torch.Tensor
    root: torch.Tensor

    def solve(self, vectors: torch.Tensor, scores: dict[int, torch.Tensor], places: list[Places]) -> Solution:
        """Solve for vectors (cells, n, k) with `scores` by the inverse of all rows; `places` are those of the folds."""
        whole = torch.cat([*scores.values(), self.pull @ vectors], 1)
        sizes = [*(each.shape[1] for each in scores.values()), len(self.lifted)]
        # `torch.cholesky_solve` would copy the factor for each of many calls with few columns.
        half = torch.linalg.solve_triangular(self.root, whole, upper=False)
        *rows, means = torch.split(torch.linalg.solve_triangular(self.root.mT, half, upper=True), sizes, 1)
        weights = vectors + self.lifted.mT @ means
        for fold, added in zip(scores, rows, strict=True):
            weights[:, places[fold]] += added
        # The columns of E in `_removed` are orthonormal, so that E′x (vectors + E z) is the solution z itself.
        return Solution(weights, dict(zip(scores, rows, strict=True)))


@dataclass(frozen=True)
class TrainingMoments:
    """Covariances and means of training sets.

    `left_out` are the folds that each leaves out, `places` where the rows of each fold are held, and `sizes` (sets) how
    many rows are left. `means` is (cells, sets, codes, r), vectors of the variants in each training set. At γ < 1 each
    has a Cholesky factor of S in `roots` or, where vectors mix rows, what it takes from all rows in `removed`.
    """

    covariance: Covariance
    left_out: Sequence[tuple[int, ...]]
    places: list[Places]
    sizes: list[int]
    means: torch.Tensor
    roots: list[torch.Tensor]
    removed: list[Removed]

    def solve(self, vectors: Sequence[torch.Tensor]) -> list[Solution]:
        """Solve for vectors (cells, r, k) of each of the first training sets."""
        factor, count = self.covariance.factor[:, None, None], len(vectors)
        sizes = [1] * count if self.covariance.plain else self.sizes[:count]
        scaled = [each * (size / factor) for each, size in zip(vectors, sizes, strict=True)]
        if self.roots:
            scaled = [torch.cholesky_solve(each, root) for each, root in zip(scaled, self.roots[:count], strict=True)]
        scores = self._scores(scaled)
        if self.removed:
            removed = self.removed[:count]
            together = zip(removed, scaled, scores, strict=True)
            return [part.solve(each, of_rows, self.places) for part, each, of_rows in together]
        return [Solution(*each) for each in zip(scaled, scores, strict=True)]

    def _scores(self, vectors: Sequence[torch.Tensor]) -> list[dict[int, torch.Tensor]]:
        """Products of the rows that each training set leaves out with its vectors, by fold."""
        scores: list[dict[int, torch.Tensor]] = [{} for _ in vectors]
        for fold, places in enumerate(self.places):
            sets = [number for number in range(len(vectors)) if fold in self.left_out[number]]
            if sets:
                columns = [vectors[number] for number in sets]
                products = self.covariance.x[:, places] @ torch.cat(columns, 2)
                parts = torch.split(products, [each.shape[2] for each in columns], 2)
                for number, part in zip(sets, parts, strict=True):
                    scores[number][fold] = part
        return scores

    def along(self, mixing: torch.Tensor) -> torch.Tensor:
        """Return what weights are multiplied with for mixtures (n, k) of the scores of rows, (cells, k, r)."""
        return mixing[self.covariance.cells.order].T @ self.covariance.x

    def raw(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights (cells, …, r, k) for the raw features, up to a factor for each cell, (cells, …, d, k)."""
        covariance = self.covariance
        if covariance.left is not None:
            flat = weights.movedim(-2, 1)
            scores = (covariance.x @ flat.flatten(2)).view(flat.shape).movedim(1, -2)
            weights = weights - scores
        return covariance.cells.raw(weights)


def variant_moments(
    cells: Cells, design: RowCodes, shrinkage: float, apart: np.ndarray | None = None
) -> TrainingMoments:
    """Means of all variants, by their codes, and the covariance around them, in every training set.

    Rows that are `apart` (n) have means of their own, by codes after those of the variants.
    """
    count, codes = len(design.variants), design.variant
    if apart is not None:
        count, codes = 2 * count, codes + count * apart
    covariance = Covariance.of(cells, codes, count, shrinkage, design.folds)
    return moments(covariance, design.fold, design.left_out)


@torch.no_grad()
def moments(covariance: Covariance, fold: np.ndarray, left_out: Sequence[tuple[int, ...]]) -> TrainingMoments:
    """The covariance of each training set around the means of its codes.

    Args:
        covariance: that of all rows.
        fold: of each row, (n,), from 0.
        left_out: the folds that each training set leaves out, one or two.
    """
    count, codes, cells, x = covariance.count, covariance.codes, covariance.cells, covariance.x
    places, fold = cells.places(fold), fold[cells.order]
    kept = torch.as_tensor(np.stack([~np.isin(fold, out) for out in left_out]))
    members = torch.as_tensor(np.eye(count, dtype=np.float32)[:, codes])
    rows = kept.float() @ members.T  # (sets, codes)
    averages = kept.float()[:, None] * members / rows.clamp(min=1.0)[..., None]
    place = torch.as_tensor(fold * count + codes)
    in_fold = torch.tensor([[float(one not in out) for one in range(len(places))] for out in left_out])

    def sums() -> torch.Tensor:
        """Of the rows of `x`, by training set and code, (cells, sets, codes, r)."""
        parts = sums_by(place, x, len(places) * count)
        return (in_fold @ parts.view(len(x), len(places), -1)).view(len(x), len(left_out), count, -1)

    mixes = cells.features is not None
    means = averages[None] if mixes else sums() / rows.clamp(min=1.0)[..., None]
    roots: list[torch.Tensor] = []
    removed: list[Removed] = []
    if not covariance.plain and not mixes:
        inner = [x[:, there].mT @ x[:, there] for there in places]
        roots = _roots(covariance, inner, left_out, means * rows.sqrt()[..., None])
    elif covariance.left is not None:
        # In sums with 1, the diagonal of what is taken from I would lose the digits that count.
        diagonal = x.diagonal(dim1=1, dim2=2)
        diagonal.copy_(-covariance.left)
        negative = sums()
        diagonal += 1.0
        corners: dict[int, torch.Tensor] = {}
        for number, (first, *others) in enumerate(left_out):
            there = rows[number] > 0
            length = rows[number, there].sqrt()[:, None]
            lifted, of_means = averages[number, there] * length, negative[:, number, there] / length
            if first not in corners:
                corners[first] = torch.linalg.cholesky(covariance.corner(places[first]))
            other = places[others[0]] if others else slice(0, 0)
            removed.append(_removed(covariance, corners[first], places[first], other, lifted, of_means))
    sizes = [int(each) for each in kept.sum(1)]
    return TrainingMoments(covariance, left_out, places, sizes, means, roots, removed)


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
    covariance: Covariance, corner: torch.Tensor, first: Places, other: Places, lifted: torch.Tensor,
    negative: torch.Tensor,
) -> Removed:  # fmt: skip
    """Decompose what a training set removes from the covariance of all rows: E′ λ (K + λI)⁻¹ E.

    E has a column for each row that is left out, those of the `first` fold and of the `other`, and one of length 1,
    `lifted` (codes, n), for each variant's mean of the others. `negative` (cells, codes, n) are the products of these
    with −λ (K + λI)⁻¹, and `corner` is the Cholesky factor of the first fold's part.
    """
    x = covariance.x
    beside = torch.cat([x[:, other][:, :, first], negative[:, :, first]], 1).neg_()
    below = torch.linalg.solve_triangular(corner, beside.mT, upper=False)
    begin, middle = corner.shape[1], beside.shape[1] - len(lifted)
    # Of what is symmetric, the lower triangle is read.
    rest = torch.zeros((len(x), beside.shape[1], beside.shape[1]))
    rest[:, :middle, :middle] = covariance.corner(other)
    rest[:, middle:, :middle] = negative[:, :, other].neg()
    rest[:, middle:, middle:] = -negative @ lifted.T
    rest.baddbmm_(below.mT, below, alpha=-1)
    root = torch.zeros((len(x), begin + len(rest[0]), begin + len(rest[0])))
    root[:, :begin, :begin], root[:, begin:, :begin] = corner, below.mT
    root[:, begin:, begin:] = torch.linalg.cholesky(rest)
    return Removed(lifted, lifted + negative, root)
