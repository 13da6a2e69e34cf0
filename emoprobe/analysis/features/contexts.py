"""Where a feature is most active: tokens with those around them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from emoprobe.analysis.features.baselines import Coder
from emoprobe.analysis.features.tokens import TokenActivations

BEFORE, AFTER = 16, 6  # tokens that are shown around one
LIKE = 4  # tokens before one that make two contexts the same


@torch.no_grad()
def top_contexts(
    tokens: TokenActivations, coder: Coder, features: Sequence[int], count: int, texts: Callable[[list[int]], list[str]]
) -> list[dict[str, Any]]:
    """Rows of the table `feature_contexts`.

    Args:
        tokens: the trajectories, of both halves: nothing is tested on them here.
        coder: what takes them apart.
        features: which features.
        count: contexts of each; a token that comes with the same ones before it counts once.
        texts: token ids → the text of each.
    """
    if not features:
        return []
    columns = torch.tensor(list(features))
    largest = np.zeros((len(tokens.shards), len(features)))
    places = np.zeros((len(tokens.shards), len(features)), dtype=int)
    for row, shard in enumerate(tokens.shards):
        if shard.length > 0:
            values, place = coder.encode(shard.tokens())[:, columns].max(dim=0)
            largest[row], places[row] = values.numpy(), place.numpy() + shard.start
    contexts = []
    for column, feature in enumerate(features):
        rows = _different(tokens, largest[:, column], places[:, column], count)
        contexts += [
            _row(tokens, coder, feature, rank, row, int(places[row, column]), texts) for rank, row in enumerate(rows, 1)
        ]
    return contexts


def _different(tokens: TokenActivations, largest: np.ndarray, places: np.ndarray, count: int) -> list[int]:
    """The rows with the largest activations, of different tokens."""
    seen: set[tuple[int, ...]] = set()
    chosen: list[int] = []
    for row in np.argsort(-largest, kind="stable"):
        place = places[row]
        key = tuple(tokens.shards[row].metadata.token_ids[max(0, place - LIKE) : place + 1])
        if largest[row] <= 0 or len(chosen) == count:
            break
        if key not in seen:
            chosen.append(int(row))
        seen.add(key)
    return chosen


def _row(
    tokens: TokenActivations, coder: Coder, feature: int, rank: int, row: int, place: int,
    texts: Callable[[list[int]], list[str]],
) -> dict[str, Any]:  # fmt: skip
    shard, about = tokens.shards[row], tokens.table.iloc[row]
    begin = max(shard.start, place - BEFORE)
    end = min(len(shard.metadata.token_ids), place + AFTER + 1)
    values = coder.encode(shard.read()[begin:end])[:, feature]
    return {
        "feature": feature,
        "rank": rank,
        "activation": float(values[place - begin]),
        "variant": about["variant"],
        "sample_id": about["sample_id"],
        "draw": int(about["draw"]),
        "token": place,
        "part": shard.part_of(place),
        "place": place - begin,
        "tokens": json.dumps(texts(shard.metadata.token_ids[begin:end]), ensure_ascii=False),
        "activations": json.dumps([round(float(value), 4) for value in values]),
    }
