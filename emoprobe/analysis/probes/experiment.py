"""All probes of an experiment: cells in turn, a few layers in memory at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from emoprobe.analysis.probes.cell import Design, FoldModel, ProbeResult, run_cell
from emoprobe.analysis.probes.directions import Directions
from emoprobe.analysis.probes.logistic import Basis
from emoprobe.analysis.probes.scores import bootstrap_counts
from emoprobe.analysis.probes.targets import Target, control_task, make_folds, make_target
from emoprobe.analysis.probes.transfer import Material, held_out_text, held_out_variant, position_transfer
from emoprobe.config.experiment import Config

THREADED_ROWS = 400
# (first layer, end, hook point) → {position: (n, layers, d) float16}
Load = Callable[[int, int, str], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Source:
    """Where the activations come from.

    `load` reads a few layers; `empty` tells for each position which rows a neighbour stands in for.
    """

    layers: list[int]
    hook_points: list[str]
    positions: list[str]
    d: int
    load: Load
    empty: dict[str, np.ndarray]


@dataclass
class Findings:
    """Rows of the two tables, and the directions."""

    directions: Directions
    probes: list[dict[str, Any]] = field(default_factory=list)
    transfer: list[dict[str, Any]] = field(default_factory=list)


def run_probes(
    table: pd.DataFrame, source: Source, config: Config, *, memory: int = 1 << 30, transfers: bool = True
) -> Findings:
    """Run every probe of an experiment.

    Args:
        table: the trajectories, one row for each row of the activations.
        source: the activations.
        config: the experiment.
        memory: bytes of activations that may be held at once; at least one layer is.
        transfers: whether to test probes on texts, variants and positions that they were not trained on.
    """
    settings = config.probes
    everything = [make_target(name, table, config) for name in settings.targets]
    targets = [target for target in everything if target.skipped is None]
    findings = Findings(Directions.empty(table, source))
    for target in everything:
        if target.skipped is not None:
            findings.probes.append({"target": target.name, "skipped": target.skipped, "n": int(target.known.sum())})
    design = make_design(table, targets, config)
    per_layer = max(1, 2 * len(table) * len(source.positions) * source.d)
    chunk = max(1, memory // per_layer)
    threads = torch.get_num_threads()
    # One cell a core goes further than all cores on one cell: most of its matrices are small. With few rows they are
    # so small that threads would wait for the interpreter, not for the matrices.
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads if len(table) >= THREADED_ROWS else 1) as pool:
            for hook_point in source.hook_points:
                for begin in range(0, len(source.layers), chunk):
                    end = min(begin + chunk, len(source.layers))
                    block = source.load(begin, end, hook_point)
                    for number in range(begin, end):
                        here = {
                            position: torch.from_numpy(values[:, number - begin].astype(np.float32))
                            for position, values in block.items()
                        }
                        findings.directions.add(hook_point, number, here, source.empty)
                        if design is not None:
                            _probe_layer(
                                findings,
                                hook_point,
                                source.layers[number],
                                number,
                                here,
                                source,
                                table,
                                design,
                                pool,
                                transfers,
                            )
    finally:
        torch.set_num_threads(threads)
    return findings


def make_design(table: pd.DataFrame, targets: list[Target], config: Config) -> Design | None:
    """What all cells share; None without a target."""
    if not targets:
        return None
    settings, seed = config.probes, config.experiment.seed
    groups = table["sample_id"].to_numpy()
    correct = next((target.labels for target in targets if target.name == "correct"), np.zeros(len(table), dtype=int))
    folds = make_folds(correct, groups, settings.folds, seed)
    counts = bootstrap_counts(groups, folds, config.analysis.bootstrap, seed)
    controls = [control_task(target, table, seed) for target in targets]
    return Design.make(targets, controls, correct, groups, counts, folds, settings, seed)


def _probe_layer(
    findings: Findings, hook_point: str, layer: int, number: int, here: dict[str, torch.Tensor], source: Source,
    table: pd.DataFrame, design: Design, pool: ThreadPoolExecutor, transfers: bool,
) -> None:  # fmt: skip
    """Every position of one layer and hook point, and the transfers between them."""
    place = {"hook_point": hook_point, "layer": layer}

    def one(position: str) -> tuple[list[ProbeResult], list[FoldModel], list[dict[str, Any]]]:
        features, rows = here[position], ~source.empty[position]
        if min(len(np.unique(target.labels[rows & target.known])) for target in design.targets) < 2:
            rows = np.ones(len(table), dtype=bool)  # all of a class is empty here: its stand-ins have to do
        basis = Basis.of(features[torch.from_numpy(rows)])
        results, models = run_cell(features, basis, rows, design)
        if not transfers:
            return results, models, []
        strengths = {result.target: result.strength for result in results}
        material = Material(features, basis, rows, table, design, strengths)
        return results, models, [*held_out_text(material), *held_out_variant(material)]

    found = dict(zip(here, pool.map(one, here), strict=True))
    for position, (results, _, held_out) in found.items():
        for result, target in zip(results, design.targets, strict=True):
            findings.directions.add_probe(target, hook_point, number, position, result.weights)
            findings.probes.append(
                place | {"position": position, "skipped": None, "d": source.d} | _columns(result, target)
            )
        findings.transfer += [place | {"test": position} | row for row in held_out]
    models = {position: models for position, (_, models, _) in found.items()}
    if transfers:
        findings.transfer += [place | row for row in position_transfer(here, models, source.empty, design)]


def _columns(result: ProbeResult, target: Target) -> dict[str, Any]:
    """A probe as a row of the table."""
    return {
        "target": result.target,
        "n": result.n,
        "samples": result.samples,
        "classes": len(target.classes),
        "accuracy": result.scores.accuracy,
        "balanced_accuracy": result.scores.balanced_accuracy,
        "auroc": result.scores.auroc,
        "auroc_low": result.low,
        "auroc_high": result.high,
        "majority": result.majority,
        "permutation_auroc": result.permutation_auroc,
        "permutation_auroc_high": result.permutation_high,
        "control_accuracy": result.control_accuracy,
        "selectivity": result.scores.accuracy - result.control_accuracy,
        "strength": result.strength,
    }
