"""How good an autoencoder is on tokens that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from emoprobe.analysis.features.autoencoder import SparseAutoencoder, best_cosines
from emoprobe.analysis.features.tokens import TokenShard

SAME = 0.7  # cosine above which two seeds are said to have a feature in common (Paulo & Belrose 2025)


@dataclass(frozen=True)
class Quality:
    """`fvu`: share of the variance that is not given back; `l0`: active features a token; `dead`: never active."""

    tokens: int
    fvu: float
    l0: float
    dead: float


@torch.no_grad()
def quality(found: SparseAutoencoder, shards: Sequence[TokenShard]) -> Quality:
    """Quality over the tokens of some shards, read one after the other."""
    total = torch.zeros(found.d, dtype=torch.float64)
    squares = error = active = 0.0
    ever = torch.zeros(found.width, dtype=torch.bool)
    count = 0
    for shard in shards:
        x = shard.tokens()
        features, given = found.encode_and_reconstruct(x)
        on = features > 0
        ever |= on.any(0)
        active += float(on.sum())
        error += float((x - given).double().square().sum())
        total += x.double().sum(0)
        squares += float(x.double().square().sum())
        count += len(x)
    variance = squares - float(total.square().sum()) / max(1, count)
    fvu = error / variance if variance > 0 else float("nan")
    return Quality(count, fvu, active / max(1, count), float((~ever).float().mean()))


def seed_cosines(found: SparseAutoencoder, others: Sequence[SparseAutoencoder]) -> torch.Tensor | None:
    """(n,): how well each feature is found again by every other seed: the least of its best cosines; None alone."""
    if not others:
        return None
    return torch.stack([best_cosines(found.directions, other.directions) for other in others]).amin(0)


def shared(found: SparseAutoencoder, others: Mapping[str, SparseAutoencoder]) -> float:
    """Share of the features that every other seed has too; NaN where there is no other."""
    cosines = seed_cosines(found, list(others.values()))
    return float("nan") if cosines is None else float((cosines > SAME).float().mean())
