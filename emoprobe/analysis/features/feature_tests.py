"""All features of an experiment that may differ with the tone, by the autoencoder and by each baseline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from emoprobe.analysis.estimates import Floats
from emoprobe.analysis.features.baselines import Coder, Projection, raw
from emoprobe.analysis.features.differences import Block, FeatureCandidate, FeatureRanking, compared, corrected
from emoprobe.analysis.features.tokens import PARTS, Half, TokenActivations

AUTOENCODER, DIFF_MEANS = "autoencoder", "diff_means"
# Coders whose features are active on few tokens; of the others it makes no sense to count.
SPARSE = (AUTOENCODER, "random")
_RAW = "activations"


@dataclass(frozen=True)
class Chosen:
    """The features of one method that are put up, and what finds them: choice i is its feature `columns[i]`."""

    coder: Coder
    choices: list[FeatureCandidate]
    columns: torch.Tensor


@torch.no_grad()
def feature_differences(
    tokens: TokenActivations, coders: Mapping[str, Coder], tones: Sequence[str], reference: str, count: int
) -> list[dict[str, Any]]:
    """Rows of the table `features`, but for what other seeds say of them.

    Args:
        tokens: the trajectories.
        coders: method → what takes activations apart: `autoencoder` and baselines. A difference of means is added.
        tones: the variants that are compared.
        reference: what with.
        count: features of each tone and part that are put up.
    """
    chosen = _choose(tokens, coders, tones, reference, count)
    blocks: dict[str, list[Block]] = {name: [] for name in chosen}
    active: dict[str, list[Block]] = {name: [] for name in chosen}
    for rows, parts in _questions(tokens, "test"):
        for name, method in chosen.items():
            means, shares = _summaries(parts, method.coder, method.columns)
            blocks[name].append((rows, means))
            active[name].append((rows, shares))
    results = []
    for name, method in chosen.items():
        measured = corrected(compared(tokens.table, reference, method.choices, blocks[name]))
        said = _active(tokens, method.choices, active[name], reference) if name in SPARSE else [{}] * len(measured)
        named: dict[str, Any] = {"feature": None} if name == DIFF_MEANS else {}
        results += [
            {"method": name, "layer": tokens.layer} | row | share | named
            for row, share in zip(measured, said, strict=True)
        ]
    return results


def _choose(
    tokens: TokenActivations, coders: Mapping[str, Coder], tones: Sequence[str], reference: str, count: int
) -> dict[str, Chosen]:
    everything: dict[str, Coder] = {**coders, _RAW: raw(tokens.d)}
    rankings = {name: FeatureRanking(tones, reference, tokens.table) for name in everything}
    for rows, parts in _questions(tokens, "fit"):
        for name, coder in everything.items():
            rankings[name].add((rows, _summaries(parts, coder)[0]))
    chosen = {}
    for name, coder in coders.items():
        choices = rankings[name].choose(count)
        chosen[name] = Chosen(coder, choices, torch.tensor([choice.feature for choice in choices], dtype=torch.long))
    pairs = [(tone, part) for part in PARTS for tone in tones]
    means = [torch.from_numpy(rankings[_RAW].mean(tone, part)).float() for tone, part in pairs]
    kept = [place for place, mean in enumerate(means) if bool(mean.any())]
    axes = torch.stack([means[place] / means[place].norm() for place in kept] or [torch.zeros(tokens.d)], dim=1)
    choices = [
        FeatureCandidate(*pairs[place], feature=number, rank=1, fitted=float("nan"))
        for number, place in enumerate(kept)
    ]
    chosen[DIFF_MEANS] = Chosen(Projection(torch.zeros(tokens.d), axes), choices, torch.arange(len(kept)))
    return chosen


def _questions(
    tokens: TokenActivations, half: Half
) -> Iterator[tuple[npt.NDArray[np.int64], list[dict[str, torch.Tensor]]]]:
    """Question by question of a half: the rows of its trajectories, and of each, part → its activations (tokens, d)."""
    in_half = np.flatnonzero(tokens.table["half"].eq(half).fillna(False))
    asked = tokens.table["sample_id"].to_numpy(dtype=object)[in_half]
    for question in dict.fromkeys(asked):
        rows = in_half[asked == question]
        parts = []
        for row in rows:
            shard = tokens.shards[row]
            values = shard.read()
            parts.append({part: values[slice(*shard.span(part))] for part in PARTS})
        yield rows, parts


def _summaries(
    parts: list[dict[str, torch.Tensor]], coder: Coder, columns: torch.Tensor | None = None
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Part → (rows, features): the mean of each feature over a part's tokens, and the share on which it is active."""
    means, active = {}, {}
    for part in PARTS:
        lengths = [len(trajectory[part]) for trajectory in parts]
        values = coder.encode(torch.cat([trajectory[part] for trajectory in parts]))
        values = values if columns is None else values[:, columns]
        pieces = torch.split(values.double(), lengths)
        # The mean over no tokens is NaN, which says that there is none.
        means[part] = torch.stack([piece.mean(0) for piece in pieces]).numpy()
        active[part] = torch.stack([(piece > 0).double().mean(0) for piece in pieces]).numpy()
    return means, active


def _active(
    tokens: TokenActivations, choices: Sequence[FeatureCandidate], blocks: Sequence[Block], reference: str
) -> list[dict[str, float]]:
    """For each choice, on what share of the tokens of the tone and of the reference it is active."""
    variants = tokens.table["variant"].to_numpy(dtype=object)
    rows = np.concatenate([rows for rows, _ in blocks]) if blocks else np.zeros(0, dtype=int)
    activity = []
    for number, choice in enumerate(choices):
        shares = np.concatenate([means[choice.part][:, number] for _, means in blocks])
        activity.append(
            {
                "tone_active": float(np.nanmean(shares[variants[rows] == choice.variant])),
                "reference_active": float(np.nanmean(shares[variants[rows] == reference])),
            }
        )
    return activity
