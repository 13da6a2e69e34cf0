"""Tokens with a known truth: sums of few directions of a dictionary, in folders as the NNsight server writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save

from emoprobe.analysis.features.tokens import TokenActivations, TokenShard, halves
from emoprobe.config.science.capture import RESID_POST
from emoprobe.results.activation_folder import METADATA, TENSORS, ActivationMetadata, TokenSpans
from emoprobe.results.atomic import to_json
from tests.calibration.features import trajectories

SYSTEM, PREFIX, QUESTION, RESPONSE = 2, 3, 5, 4  # tokens of each part
LENGTH = SYSTEM + PREFIX + QUESTION + RESPONSE

# (row of the table, generator) → what is added to how likely each direction is, (features,)
Plant = Callable[[Mapping[str, object], np.random.Generator], np.ndarray]


@dataclass(frozen=True)
class Planted:
    """Tokens, and the dictionary that they are made of, (features, d), unit rows."""

    tokens: TokenActivations
    dictionary: torch.Tensor


def table(questions: int, texts: Mapping[str, int], groups: int = 0) -> pd.DataFrame:
    """A row for each variant and question; `texts` says how many texts a variant has."""
    found = trajectories(texts, questions, groups)
    found["half"] = halves(found, 0)
    return found


def shard(
    folder: Path, values: torch.Tensor, ids: list[int] | None = None, dtype: torch.dtype = torch.float32
) -> TokenShard:
    """Write a folder with the activations (tokens, d) of one trajectory."""
    content = save({RESID_POST: values[None].to(dtype).contiguous()})
    begin = SYSTEM + PREFIX
    metadata = ActivationMetadata(
        dtype=str(dtype).removeprefix("torch."),
        layers=[1],
        hook_points=[RESID_POST],
        positions="all",
        token_ids=ids or list(range(len(values))),
        spans=TokenSpans(
            prefix=(SYSTEM, begin), question=(begin, begin + QUESTION), response=(begin + QUESTION, len(values))
        ),
        shapes={RESID_POST: [1, *values.shape]},
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
    )
    folder.mkdir(parents=True)
    (folder / TENSORS).write_bytes(content)
    (folder / METADATA).write_text(to_json(metadata.values()))
    return TokenShard(folder, metadata)


def planted(
    folder: Path, rows: pd.DataFrame, features: int = 32, d: int = 16, active: float = 2.0, seed: int = 0,
    plant: Plant | None = None,
) -> Planted:  # fmt: skip
    """Trajectories whose tokens are sums of `active` of `features` directions on average, and a little noise."""
    generator = np.random.default_rng(seed)
    dictionary = generator.normal(size=(features, d))
    dictionary /= np.linalg.norm(dictionary, axis=1, keepdims=True)
    shards = []
    for number, row in enumerate(rows.to_dict("records")):
        odds = np.full(features, active / features)
        if plant is not None:
            odds = np.clip(odds + plant({str(key): value for key, value in row.items()}, generator), 0, 1)
        on = generator.random((LENGTH, features)) < odds
        sizes = on * generator.uniform(1.0, 2.0, on.shape)
        values = sizes @ dictionary + 0.01 * generator.normal(size=(LENGTH, d)) + 3.0
        shards.append(shard(folder / str(number), torch.from_numpy(values).float()))
    return Planted(TokenActivations(rows, shards, 1, d), torch.from_numpy(dictionary).float())
