"""Features of cells, scaled, and their inner products where there are no more rows than features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

FLAT = 1e-6  # a column with a deviation below this share of its mean is constant up to rounding
STRIP = 256  # rows that are worked on together

Places = slice | np.ndarray  # of rows; a slice is no copy


@dataclass(frozen=True)
class Cells:
    """The features of some cells, each of unit variance, and vectors that are mixtures of their rows.

    Rows are held in `order`, by fold. A vector is (cells, r, k): r = d coordinates where there are more rows than
    features, and otherwise the weights of the r = n rows in it, which all cells can share (1, n, k). Either way
    `x @ vector`, with `x` (cells, n, r), is the inner product of rows with it. `scale` (cells, d) and `features`
    (cells, n, d; None: r = d) lead vectors back to the raw features.
    """

    x: torch.Tensor
    d: int
    scale: torch.Tensor
    features: torch.Tensor | None
    order: np.ndarray

    @classmethod
    @torch.no_grad()
    def of(cls, features: torch.Tensor, fold: np.ndarray) -> Cells:
        """Scale features (cells, n, d), float32, of rows in folds (n), without a look at any label."""
        order = np.argsort(fold, kind="stable")
        mean = features.mean(1, keepdim=True)
        x = features[:, order].sub_(mean)
        n, d = x.shape[1:]
        squares = sum(x[:, begin : begin + STRIP].square().sum(1, keepdim=True) for begin in range(0, n, STRIP))
        deviation = (torch.as_tensor(squares) / n).sqrt()
        flat = deviation <= FLAT * mean.abs().clamp(min=FLAT)
        scale = torch.where(flat, 0.0, 1.0 / deviation.clamp(min=torch.finfo(features.dtype).tiny))
        x *= scale
        return cls(x, d, scale[:, 0], None, order) if n > d else cls(_inner(x), d, scale[:, 0], x, order)

    def mix(self, mixing: torch.Tensor) -> torch.Tensor:
        """Return mixtures of the rows as vectors, of weights (n, k)."""
        sorted_ = mixing[self.order]
        return (sorted_.T @ self.x).mT if self.features is None else sorted_[None]

    def places(self, fold: np.ndarray) -> list[Places]:
        """Where the rows of each fold (n) are held, in their own order."""
        held = np.argsort(self.order)
        found: list[Places] = []
        for code in range(int(fold.max()) + 1):
            rows = held[fold == code]
            together = len(rows) > 0 and (np.diff(rows) == 1).all()
            found.append(slice(int(rows[0]), int(rows[-1]) + 1) if together else rows)
        return found

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
