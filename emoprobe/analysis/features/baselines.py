"""What a feature has to be compared with: a plain difference of means, principal components, a random autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from emoprobe.analysis.features.tokens import TokenShard

COMPONENTS = 64


class Coder(Protocol):
    """Anything that takes activations (tokens, d) apart into features (tokens, width)."""

    @property
    def width(self) -> int:
        """Number of features."""

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The features."""


@dataclass(frozen=True)
class Projection:
    """Projections of x − `mean` (d,) onto `axes` (d, width)."""

    mean: torch.Tensor
    axes: torch.Tensor

    @property
    def width(self) -> int:
        """Number of axes."""
        return int(self.axes.shape[1])

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """(tokens, width)."""
        return (x - self.mean) @ self.axes


@dataclass(frozen=True)
class TokenMoments:
    """Mean (d,) and covariance (d, d) of tokens, and the median length of their activations."""

    mean: torch.Tensor
    covariance: torch.Tensor
    median_norm: float

    @classmethod
    def of(cls, shards: Sequence[TokenShard]) -> TokenMoments:
        """Of some shards, read one after the other."""
        total, products, norms = None, None, []
        for shard in shards:
            x = shard.tokens().double()
            total = x.sum(0) if total is None else total + x.sum(0)
            products = x.T @ x if products is None else products + x.T @ x
            norms.append(x.norm(dim=1))
        assert total is not None
        assert products is not None
        lengths = torch.cat(norms)
        mean = total / len(lengths)
        covariance = products / len(lengths) - torch.outer(mean, mean)
        return cls(mean.float(), covariance, float(lengths.median()))


def principal_components(moments: TokenMoments) -> Projection:
    """The directions along which tokens vary most, most first."""
    axes = torch.linalg.eigh(moments.covariance).eigenvectors.flip(1)[:, :COMPONENTS]
    return Projection(moments.mean, axes.float().contiguous())


def raw(d: int) -> Projection:
    """The activations themselves."""
    return Projection(torch.zeros(d), torch.eye(d))
