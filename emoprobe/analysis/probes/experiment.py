"""All probes of an experiment: a few layers in memory at a time, the layers of a position as one problem."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from emoprobe.analysis.probes import transfer
from emoprobe.analysis.probes.choice import Place
from emoprobe.analysis.probes.design import Design
from emoprobe.analysis.probes.directions import Directions
from emoprobe.analysis.probes.discriminant import Cells, variant_moments
from emoprobe.analysis.probes.position import Position, positions_of
from emoprobe.analysis.probes.source import Source
from emoprobe.analysis.probes.targets import CorrectTarget, ValenceTarget, VariantTarget
from emoprobe.config.experiment import Config

THREADED_ROWS = 1000
BATCH = 1 << 25  # floats that one batch of cells may take


@dataclass
class Findings:
    """Rows of the tables `probes`, `probe_tests` and `probe_transfer`, and the directions."""

    directions: Directions
    probes: list[dict[str, Any]] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    transfer: list[dict[str, Any]] = field(default_factory=list)


def run_probes(
    table: pd.DataFrame, source: Source, config: Config, *, memory: int = 1 << 30, transfers: bool = True
) -> Findings:
    """Run every probe of an experiment: each target at each layer, hook point and position.

    Args:
        table: the table `trajectories`.
        source: the activations of those rows of the table that have any, such as `folder_source` gives.
        config: the experiment; its `probes`, `analysis.references` and seed count.
        memory: bytes of activations that may be held at once; at least one layer is.
        transfers: whether to test probes on texts, variants and positions that they were not trained on.

    Raises:
        ActivationError: a file of the source is damaged.
    """
    threads = torch.get_num_threads()
    # Matrices of few rows are so small that threads would wait for each other most of the time.
    torch.set_num_threads(threads if len(source.rows) >= THREADED_ROWS else 1)
    try:
        return _run(table, source, config, memory, transfers)
    finally:
        torch.set_num_threads(threads)


def _run(table: pd.DataFrame, source: Source, config: Config, memory: int, transfers: bool) -> Findings:
    table = table.iloc[source.rows].reset_index(drop=True)
    design, settings = Design.of(table, config), config.probes
    findings = Findings(Directions.empty(design.variants, config, source.layers, source.d))
    positions = positions_of(table, design, source.empty, settings)
    valence = ValenceTarget(design, settings) if "valence" in settings.targets else None
    correct = CorrectTarget(design, settings) if "correct" in settings.targets else None
    why = [position.reasons["correct"] for position in positions if "correct" in position.reasons]
    if correct is not None and why:
        correct.reason = why[0]
    variant = VariantTarget(design, settings) if "variant" in settings.targets else None
    for hook_point, begin, block in _batches(source, positions, settings.permutations, memory):
        place = {"hook_point": hook_point}
        weights: dict[str, dict[str, torch.Tensor]] = {"valence": {}, "correct": {}}
        for position in positions:
            features = block[position.name]
            places: list[Place] = [
                place | {"position": position.name, "layer": layer}
                for layer in source.layers[begin : begin + len(features)]
            ]
            findings.directions.add(hook_point, position.name, begin, features, position.design)
            cells = Cells.of(features)
            moments = variant_moments(cells, position.design, settings.shrinkage)
            if variant is not None and variant.reason is None:
                raw = variant.add(cells, places, position, moments)
                findings.directions.add_probe(
                    "variant", [design.variants[code] for code in np.unique(position.design.variant)],
                    hook_point, position.name, begin, raw,
                )  # fmt: skip
            rows: transfer.Rows = [[] for _ in places]
            if valence is not None and position.valence is not None:
                result = valence.add(cells, places, position, moments)
                raw = weights["valence"][position.name] = cells.raw(result.weights)
                direction = (raw.mean(1) * torch.from_numpy(position.valence.signs).float()).sum(2, keepdim=True)
                findings.directions.add_probe("valence", ["positive"], hook_point, position.name, begin, direction)
                if transfers:
                    _extend(rows, transfer.held_out_variants(result.by_pair, position.valence))
                    _extend(rows, transfer.held_out_texts(cells, position.valence, settings.shrinkage))
            if correct is not None and position.correct is not None:
                slopes = correct.add(cells, places, position, moments).weights
                raw = weights["correct"][position.name] = cells.raw(slopes)
                findings.directions.add_probe(
                    "correct", ["correct"], hook_point, position.name, begin, raw.mean(1)
                )  # fmt: skip
                if transfers:
                    _extend(rows, transfer.correct_without_variant(cells, position.correct, moments))
            findings.transfer += [
                {"hook_point": hook_point, "layer": at["layer"], "test": position.name} | row
                for at, own in zip(places, rows, strict=True)
                for row in own
            ]
        if transfers:
            layers = source.layers[begin : begin + len(block[positions[0].name])]
            findings.transfer += _between_positions(hook_point, layers, positions, block, weights)
    for target in (variant, valence, correct):
        if target is not None:
            findings.probes += target.rows()
            findings.tests.append(target.test())
    return findings


def _batches(
    source: Source, positions: list[Position], permutations: int, memory: int
) -> Iterator[tuple[str, int, dict[str, torch.Tensor]]]:
    """Hook point, first layer and, for each position, the features (layers, n, d) of its rows."""
    n, d = len(source.rows), source.d
    held = max(1, memory // max(1, 2 * n * len(source.positions) * d))
    size = max(1, BATCH // (n * d + 40 * min(n, d) ** 2 + 3 * n * permutations))
    for hook_point in source.hook_points:
        for first in range(0, len(source.layers), held):
            block = source.load(first, min(first + held, len(source.layers)), hook_point)
            for begin in range(0, len(block[positions[0].name][0]), size):
                yield (
                    hook_point,
                    first + begin,
                    {
                        position.name: torch.from_numpy(
                            block[position.name][position.rows, begin : begin + size]
                            .swapaxes(0, 1)
                            .astype(np.float32, order="C")
                        )
                        for position in positions
                    },
                )


def _between_positions(
    hook_point: str, layers: list[int], positions: list[Position], block: dict[str, torch.Tensor],
    weights: dict[str, dict[str, torch.Tensor]],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Train at one position, test at another, on the questions that the fold holds out."""
    for train in positions:
        for test in positions:
            for target, own in (("valence", test.valence), ("correct", test.correct)):
                if own is None or train.name not in weights[target]:
                    continue
                features, raw = block[test.name][:, own.rows], weights[target][train.name]
                if target == "valence":
                    areas = transfer.valence_at(features, raw, own)  # type: ignore[arg-type]
                else:
                    areas = transfer.correct_at(features, raw, own)  # type: ignore[arg-type]
                for layer, area in zip(layers, areas.tolist(), strict=True):
                    yield {
                        "kind": "position",
                        "target": target,
                        "hook_point": hook_point,
                        "layer": layer,
                        "train": train.name,
                        "test": test.name,
                        "n": len(own.rows),
                        "auroc": area,
                    }


def _extend(rows: transfer.Rows, more: transfer.Rows) -> None:
    for own, other in zip(rows, more, strict=True):
        own += other
