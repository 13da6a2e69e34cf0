"""A sparse autoencoder: it takes an activation apart into few of many features, and puts it together again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

Normalization = Literal["none", "layer_norm", "constant_norm_rescale"]
NORM_EPSILON = 1e-5
SAME = 0.7  # cosine above which two seeds are said to have a feature in common (Paulo & Belrose 2025)


@dataclass(frozen=True)
class SparseAutoencoder:
    """Weights, for activations of d values and n features; all float32.

    With x normalized as `normalization` says, pre = (x − b_dec) W_enc + b_enc (without − b_dec unless
    `subtract_b_dec`). The features are ReLU(pre), of which `threshold` (n,) keeps those that are larger (JumpReLU:
    Rajamanoharan et al. 2024; BatchTopK after training: Bussmann et al. 2024) and `k` the largest k of a token (TopK:
    Gao et al. 2024). What is given back is features W_dec + b_dec.

    Attributes:
        architecture: standard, jumprelu, topk, or batch_topk.
        w_enc: (d, n).
        b_enc: (n,).
        w_dec: (n, d); a row is the direction that a feature writes along.
        b_dec: (d,).
    """

    architecture: str
    w_enc: torch.Tensor
    b_enc: torch.Tensor
    w_dec: torch.Tensor
    b_dec: torch.Tensor
    subtract_b_dec: bool = True
    threshold: torch.Tensor | None = None
    k: int | None = None
    normalization: Normalization = "none"

    @property
    def d(self) -> int:
        """Values of an activation."""
        return int(self.w_dec.shape[1])

    @property
    def width(self) -> int:
        """Features."""
        return int(self.w_dec.shape[0])

    @property
    def directions(self) -> torch.Tensor:
        """(n, d): the decoder's rows as unit vectors; zeros stay."""
        units: torch.Tensor = self.w_dec / self.w_dec.norm(dim=1, keepdim=True).clamp(min=1e-12)
        return units

    def encode(self, x: torch.Tensor) -> torch.Tensor:
        """The features (…, n) of activations (…, d)."""
        return self._features(self._normalized(x)[0])

    def decode(self, features: torch.Tensor) -> torch.Tensor:
        """Activations (…, d) of features (…, n); where activations are normalized, the normalized ones."""
        return features @ self.w_dec + self.b_dec

    def reconstruct(self, x: torch.Tensor) -> torch.Tensor:
        """Reconstruct activations (…, d)."""
        return self.encode_and_reconstruct(x)[1]

    def encode_and_reconstruct(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The features (…, n) of activations (…, d), and what it gives back of them."""
        normalized, scale, shift = self._normalized(x)
        features = self._features(normalized)
        return features, self.decode(features) * scale + shift

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        pre = (x - self.b_dec if self.subtract_b_dec else x) @ self.w_enc + self.b_enc
        features = pre.relu()
        if self.threshold is not None:
            features = features * (pre > self.threshold)
        if self.k is not None:
            kept = features.topk(self.k, dim=-1)
            features = torch.zeros_like(features).scatter_(-1, kept.indices, kept.values)
        return features

    def _normalized(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float, torch.Tensor | float]:
        """Activations as the encoder takes them, and the scale and shift that undo it."""
        if self.normalization == "layer_norm":
            mean = x.mean(dim=-1, keepdim=True)
            scale = (x - mean).std(dim=-1, keepdim=True)
            # As it was trained: the epsilon is added on the way in, not on the way out.
            return (x - mean) / (scale + NORM_EPSILON), scale, mean
        if self.normalization == "constant_norm_rescale":
            scale = x.norm(dim=-1, keepdim=True) / self.d**0.5
            return x / scale, scale, 0.0
        return x, 1.0, 0.0


def random_autoencoder(width: int, k: int, mean: torch.Tensor, seed: int) -> SparseAutoencoder:
    """A baseline: directions at random, the same to read and to write, k of them active on each token.

    Args:
        width: its features.
        k: features of a token.
        mean: (d,), of the activations.
        seed: of the directions.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(width, len(mean), generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    return SparseAutoencoder("topk", directions.T.contiguous(), torch.zeros(width), directions, mean, k=k)


def best_cosines(directions: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(n,): the largest cosine of each of some unit vectors (n, d) with any of others (m, d)."""
    return torch.cat([(part @ others.T).amax(dim=1) for part in torch.split(directions, 4096)])


def seed_cosines(autoencoder: SparseAutoencoder, others: Sequence[SparseAutoencoder]) -> torch.Tensor | None:
    """(n,): how well each feature is found again by every other seed: the least of its best cosines; None alone."""
    if not others:
        return None
    return torch.stack([best_cosines(autoencoder.directions, other.directions) for other in others]).amin(0)


def shared(autoencoder: SparseAutoencoder, others: Mapping[str, SparseAutoencoder]) -> float:
    """Share of the features that every other seed has too; NaN where there is no other."""
    cosines = seed_cosines(autoencoder, list(others.values()))
    return float("nan") if cosines is None else float((cosines > SAME).float().mean())
