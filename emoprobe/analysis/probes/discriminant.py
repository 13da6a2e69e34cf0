"""Regularised linear discriminants of many cells and training sets at once.

The probe is Fisher's discriminant, w = S⁻¹ δ: δ is a difference of means over the training rows, S their covariance
within variants, drawn to a multiple of the identity, (1 − γ) S + γ tr(S)/d · I (Friedman 1989). S needs no label, so a
decomposition serves every permutation of the labels; at γ = 1 the probe is a plain difference of means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from emoprobe.analysis.probes.row_codes import RowCodes

ROUNDING = 4 * torch.finfo(torch.float32).eps
JITTER = 1e-6  # of the mean diagonal, so that a Gram matrix of rounding errors can be decomposed
FLAT = 1e-6  # a column with a deviation below this share of its mean is constant up to rounding


@dataclass(frozen=True)
class Cells:
    """The features of some cells in few coordinates.

    `x` is (cells, n, r) with r ≤ min(n, d): scaled to unit variance, then rotated without loss. `scale` (cells, d) and
    `basis` (cells, d, r; None: r = d) lead weights back to the raw features.
    """

    x: torch.Tensor
    d: int
    scale: torch.Tensor
    basis: torch.Tensor | None

    @classmethod
    @torch.no_grad()
    def of(cls, features: torch.Tensor) -> Cells:
        """Scale and rotate features (cells, n, d), float32. Neither sees a label."""
        mean = features.mean(1, keepdim=True)
        x = features - mean
        deviation = torch.linalg.vector_norm(x, dim=1, keepdim=True) / x.shape[1] ** 0.5
        flat = deviation <= FLAT * mean.abs().clamp(min=FLAT)
        scale = torch.where(flat, 0.0, 1.0 / deviation.clamp(min=torch.finfo(features.dtype).tiny))
        x *= scale
        n, d = x.shape[1:]
        if n >= d:
            return cls(x, d, scale[:, 0], None)
        wide = x.double()  # in single precision rounding alone can make the Gram matrix indefinite
        gram = wide @ wide.mT
        level = gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=JITTER)
        root = torch.linalg.cholesky(gram + JITTER * level[:, None, None] * torch.eye(n, dtype=gram.dtype))
        basis = torch.linalg.solve_triangular(root.float(), x, upper=False).mT
        return cls(root.float(), d, scale[:, 0], basis)

    def raw(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights (cells, …, r, k) for the raw features, (cells, …, d, k)."""
        columns = weights.movedim(-2, 1)
        flat = columns.flatten(2)
        raw = (flat if self.basis is None else self.basis @ flat) * self.scale[..., None]
        return raw.view(len(raw), self.d, *columns.shape[2:]).movedim(1, -2)


@dataclass(frozen=True)
class TrainingMoments:
    """Covariances and means of training sets: `roots` has a Cholesky factor (cells, r, r) for each set.

    `means` is (cells, sets, codes, r), and `counts` (sets, codes) the rows behind each; a mean of none is 0.
    """

    roots: list[torch.Tensor]
    means: torch.Tensor
    counts: torch.Tensor

    def solve(self, number: int, right: torch.Tensor) -> torch.Tensor:
        """S⁻¹ of one training set times (cells, r, k)."""
        return torch.cholesky_solve(right, self.roots[number])

    def weights(self, sets: int, codes: np.ndarray | slice = slice(None)) -> torch.Tensor:
        """S⁻¹ times the means of some codes in the first training sets, (cells, sets, r, codes)."""
        return torch.stack([self.solve(number, self.means[:, number, codes].mT) for number in range(sets)], 1)


def variant_moments(cells: Cells, design: RowCodes, shrinkage: float) -> TrainingMoments:
    """Means of all variants, by their codes, and the covariance around them, in every training set."""
    return moments(cells.x, design, design.variant, shrinkage, cells.d, len(design.left_out), len(design.variants))


@torch.no_grad()
def moments(
    x: torch.Tensor, design: RowCodes, codes: np.ndarray, shrinkage: float, d: int, sets: int, count: int
) -> TrainingMoments:  # fmt: skip
    """The covariance of each training set around the means of its codes.

    Args:
        x: features (cells, n, r).
        design: the rows; the first `sets` of its training sets are decomposed.
        codes: what rows have a mean in common, (n,), from 0.
        shrinkage: γ in (0, 1].
        d: the number of raw features, over which the trace is spread.
        sets: how many training sets.
        count: how many codes there are.
    """
    cells, _, r = x.shape
    place = torch.from_numpy(design.fold * count + codes)
    sums = x.new_zeros((cells, design.folds * count, r)).index_add_(1, place, x).view(cells, design.folds, -1)
    rows = torch.bincount(place, minlength=design.folds * count).view(design.folds, count).to(x.dtype)
    inner = [x[:, design.fold == fold].mT @ x[:, design.fold == fold] for fold in range(design.folds)]
    kept = torch.tensor(
        [[float(fold not in out) for fold in range(design.folds)] for out in design.left_out[:sets]], dtype=x.dtype
    )
    counts = kept @ rows
    means = (kept @ sums).view(cells, sets, count, r) / counts.clamp(min=1.0)[..., None]
    weighted = means * counts.sqrt()[..., None]
    # One set at a time and in place: fresh memory for all of them would take longer to come by than to fill.
    whole, scatter = torch.stack(inner).sum(0), torch.empty_like(inner[0])
    roots = []
    for number, total in enumerate(counts.sum(1).clamp(min=1.0).tolist()):
        first, *others = design.left_out[number]
        torch.sub(whole, inner[first], out=scatter)
        for fold in others:
            scatter -= inner[fold]
        scatter.baddbmm_(weighted[:, number].mT, weighted[:, number], alpha=-1)
        diagonal = scatter.diagonal(dim1=1, dim2=2)
        level = diagonal.sum(1, keepdim=True) / (total * d)
        scatter *= (1 - shrinkage) / total
        # Where a training set hardly varies, what is left of the differences is rounding, which may be indefinite.
        rounding = ROUNDING * whole.diagonal(dim1=1, dim2=2).sum(1, keepdim=True) / total
        diagonal += torch.maximum(shrinkage * level.clamp(min=JITTER), rounding)
        roots.append(torch.linalg.cholesky(scatter))
    return TrainingMoments(roots, means, counts)
