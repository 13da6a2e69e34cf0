"""Regularised linear discriminants of many cells and training sets at once.

The probe is Fisher's discriminant, w = S⁻¹ δ: δ is a difference of means over the training rows, S their covariance
within variants, drawn to a multiple of the identity, (1 − γ) S + γ tr(S)/d · I (Friedman 1989). S needs no label, so a
decomposition serves every permutation of the labels; at γ = 1 the probe is a plain difference of means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from emoprobe.analysis.probes.design import Design

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
        deviation, mean = torch.std_mean(features, dim=1, correction=0, keepdim=True)
        flat = deviation <= FLAT * mean.abs().clamp(min=FLAT)
        scale = torch.where(flat, 0.0, 1.0 / deviation.clamp(min=torch.finfo(features.dtype).tiny))
        x = (features - mean) * scale
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
        between = (1,) * (weights.dim() - 3)
        if self.basis is not None:
            weights = self.basis.view(len(weights), *between, *self.basis.shape[1:]) @ weights
        return weights * self.scale.view(len(weights), *between, -1, 1)


@dataclass(frozen=True)
class Moments:
    """Covariances and means of training sets: `root` (cells, sets, r, r) is a Cholesky factor.

    `means` is (cells, sets, codes, r), and `counts` (sets, codes) the rows behind each; a mean of none is 0.
    """

    root: torch.Tensor
    means: torch.Tensor
    counts: torch.Tensor

    def solve(self, right: torch.Tensor) -> torch.Tensor:
        """S⁻¹ times (cells, sets, r, k)."""
        return torch.cholesky_solve(right, self.root)


def variant_moments(cells: Cells, design: Design, shrinkage: float) -> Moments:
    """Means of all variants, by their codes, and the covariance around them, in every training set."""
    return moments(cells.x, design, design.variant, shrinkage, cells.d, len(design.left_out), len(design.variants))


@torch.no_grad()
def moments(
    x: torch.Tensor, design: Design, codes: np.ndarray, shrinkage: float, d: int, sets: int, count: int
) -> Moments:  # fmt: skip
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
    inner = torch.stack([x[:, design.fold == fold].mT @ x[:, design.fold == fold] for fold in range(design.folds)], 1)
    kept = torch.tensor(
        [[float(fold not in out) for fold in range(design.folds)] for out in design.left_out[:sets]], dtype=x.dtype
    )
    counts = kept @ rows
    means = (kept @ sums).view(cells, sets, count, r) / counts.clamp(min=1.0)[..., None]
    scatter = (kept @ inner.view(cells, design.folds, -1)).view(cells, sets, r, r)
    scatter = scatter - (means * counts[..., None]).mT @ means
    covariance = scatter / counts.sum(1).clamp(min=1.0)[:, None, None]
    level = covariance.diagonal(dim1=2, dim2=3).sum(2) / d
    identity = torch.eye(r, dtype=x.dtype)
    shrunk = (1 - shrinkage) * covariance + (shrinkage * level.clamp(min=JITTER))[..., None, None] * identity
    return Moments(torch.linalg.cholesky(shrunk), means, counts)
