"""All probes of an experiment: a few layers in memory at a time, the layers of a position as one problem."""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from emoprobe.analysis.probes import transfer
from emoprobe.analysis.probes.activation_source import ActivationSource
from emoprobe.analysis.probes.cell_choice import Place
from emoprobe.analysis.probes.directions import Directions
from emoprobe.analysis.probes.position import Probed, ProbedPosition, positions_of, probe_position
from emoprobe.analysis.probes.probe_design import is_response
from emoprobe.analysis.probes.row_codes import RowCodes
from emoprobe.analysis.probes.targets import CorrectTarget, ValenceTarget, VariantTarget, WithinTarget
from emoprobe.config.experiment import Config
from emoprobe.conversations.variants import variant_texts
from emoprobe.models.device_errors import is_out_of_memory

log = logging.getLogger(__name__)

THREADED_ROWS = 1000
CPU = torch.device("cpu")
BATCH = 1 << 25  # floats that one batch of cells may take


@dataclass
class Findings:
    """Rows of the tables `probes`, `probe_tests` and `probe_transfer`, the directions, and what computed the probes."""

    directions: Directions
    device: torch.device
    probes: list[dict[str, Any]] = field(default_factory=list)
    tests: list[dict[str, Any]] = field(default_factory=list)
    transfer: list[dict[str, Any]] = field(default_factory=list)


def run_probes(
    table: pd.DataFrame, source: ActivationSource, config: Config, *, memory: int = 1 << 30, transfers: bool = True,
    device: torch.device | None = None,
) -> Findings:  # fmt: skip
    """Run every probe of an experiment: each target at each layer, hook point and position.

    Where a GPU has too little free memory, the probes run on the CPU.

    Args:
        table: the table `trajectories`.
        source: the activations of those rows of the table that have any, such as `folder_source` gives.
        config: the experiment; its `probes`, `analysis.references` and seed count.
        memory: bytes of activations that may be held at once; at least one layer is.
        transfers: whether to test probes on texts, variants and positions that they were not trained on.
        device: what computes; by default the first GPU that can be used, else the CPU.

    Raises:
        ActivationError: a file of the source is damaged.
    """
    threads, device = torch.get_num_threads(), device or usable_device()
    try:
        if device != CPU:
            try:
                return _run(table, source, config, memory, transfers, threads, device)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # The error, which held what was computed, is gone here.
            torch.cuda.empty_cache()
            log.warning("The GPU has too little free memory for the probes: they run on the CPU.")
        return _run(table, source, config, memory, transfers, threads, CPU)
    finally:
        torch.set_num_threads(threads)


def use_large_pages() -> None:
    """Let PyTorch ask for memory in large pages, for a process that has made no tensor yet.

    Cells go through gigabytes of fresh memory: in pages of 4 KiB they take 7 % more CPU time (n = 3,200, d = 4,096).
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


def usable_device() -> torch.device:
    """Return the first GPU, where it takes a tensor, else the CPU."""
    if torch.cuda.is_available():
        try:
            return torch.zeros(1, device="cuda").device
        except RuntimeError as error:  # it is full, or another process has it to itself
            log.warning("The probes run on the CPU, since the GPU cannot be used: %s", str(error).partition("\n")[0])
    return CPU


def _run(
    table: pd.DataFrame, source: ActivationSource, config: Config, memory: int, transfers: bool, threads: int,
    device: torch.device,
) -> Findings:  # fmt: skip
    table = table.iloc[source.rows].reset_index(drop=True)
    design, settings = RowCodes.of(table, config), config.probes
    texts = _texts(table, config)
    findings = Findings(Directions.empty(design.variants, config, source.layers, source.d), device)
    positions = positions_of(table, texts, design, source.empty, settings)
    valence = ValenceTarget(design, settings) if "valence" in settings.targets else None
    correct = CorrectTarget(design, settings) if "correct" in settings.targets else None
    answers = any(is_response(position.name) for position in positions)
    within = WithinTarget(design, settings) if correct is not None and answers else None
    for name, target in (("valence", valence), ("correct", correct)):
        why = [position.reasons[name] for position in positions if name in position.reasons]
        if target is not None and why:
            target.reason = why[0]
    variant = VariantTarget(design, settings) if "variant" in settings.targets else None
    without = {"variant"} if variant is None or variant.reason is not None else set()
    targets = [target for target in settings.targets if target not in without]
    waiting: deque[tuple[str, int, dict[str, torch.Tensor], list[Future[Probed]]]] = deque()

    def gather() -> None:
        """Take in the batch that has waited longest."""
        hook_point, begin, block, futures = waiting.popleft()
        layers = source.layers[begin : begin + len(block[positions[0].name])]
        weights: dict[str, dict[str, torch.Tensor]] = {"valence": {}, "correct": {}}
        for position, future in zip(positions, futures, strict=True):
            probed = future.result()
            places: list[Place] = [
                {"hook_point": hook_point, "position": position.name, "layer": layer} for layer in layers
            ]
            findings.directions.add(hook_point, position.name, begin, block[position.name], position.design)
            for target, (classes, directions) in probed.directions.items():
                findings.directions.add_probe(target, classes, hook_point, position.name, begin, directions)
            if variant is not None and probed.variant is not None:
                variant.add(probed.variant, places, position, probed.d)
            if valence is not None and probed.valence is not None:
                valence.add(probed.valence, places, position, probed.d)
            if correct is not None and probed.correct is not None and probed.added is not None:
                assert probed.correct_diff_means is not None
                correct.add(
                    probed.correct, probed.correct_diff_means, probed.added, probed.untruncated, places, position,
                    probed.d,
                )  # fmt: skip
            if within is not None and probed.within is not None:
                within.add(probed.within, places, position)
            for target, raw in probed.weights.items():
                weights[target][position.name] = raw
            findings.transfer += [
                {"hook_point": hook_point, "layer": layer, "test": position.name} | row
                for layer, layer_rows in zip(layers, probed.transfer, strict=True)
                for row in layer_rows
            ]
        if transfers:
            findings.transfer += _between_positions(hook_point, layers, positions, block, weights)

    # Positions share the threads: within one problem they wait for each other, a third of the time at 1,400 rows. At
    # most two batches are at work; what is left goes into each problem, unless its matrices are small.
    workers = min(threads, len(positions) * min(2, len(source.hook_points) * len(source.layers)))
    each = threads // workers if len(source.rows) >= THREADED_ROWS else 1
    torch.set_num_threads(each)
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,)) as pool:
        for hook_point, begin, block in _batches(source, positions, settings.permutations, memory):
            futures = [
                pool.submit(probe_position, block[position.name], position, settings, targets, transfers, device)
                for position in positions
            ]
            waiting.append((hook_point, begin, block, futures))
            if len(waiting) > 1:  # so that no thread is idle at the end of a batch
                gather()
        while waiting:
            gather()
    for gathered in (variant, valence, correct):
        if gathered is not None:
            findings.probes += gathered.rows()
            findings.tests.append(gathered.test())
    if within is not None:
        findings.tests.append(within.test())
    return findings


def _texts(table: pd.DataFrame, config: Config) -> list[str | None]:
    """The text that each row's variant adds to the prompt; None where config and table do not say which."""
    known = {name: variant_texts(config, name) for name, variant in config.variants.items() if not variant.transform}
    texts: list[str | None] = []
    for name, place in zip(table["variant"].astype(str), table["paraphrase"], strict=True):
        of_variant = known.get(name)
        if of_variant is not None and len(of_variant) < 2:
            texts.append("".join(of_variant))
        else:
            texts.append(None if of_variant is None or pd.isna(place) else of_variant[int(place)])
    return texts


def _batches(
    source: ActivationSource, positions: list[ProbedPosition], permutations: int, memory: int
) -> Iterator[tuple[str, int, dict[str, torch.Tensor]]]:
    """Hook point, first layer and, for each position, the features (layers, n, d) of its rows."""
    n, d = len(source.rows), source.d
    held = max(1, memory // max(1, 2 * n * len(source.positions) * d))
    decomposed = 40 * d**2 if n > d else 8 * n**2
    size = max(1, BATCH // (n * d + decomposed + 3 * n * permutations))
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
    hook_point: str, layers: list[int], positions: list[ProbedPosition], block: dict[str, torch.Tensor],
    weights: dict[str, dict[str, torch.Tensor]],
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Train at one position, test at another, on the questions that the fold holds out."""
    for target in ("valence", "correct"):
        trained = weights[target]
        for test in positions:
            tested = getattr(test, target)
            if tested is None or not trained:
                continue
            at = transfer.valence_at if target == "valence" else transfer.correct_at
            for train, areas in zip(trained, at(block[test.name], list(trained.values()), tested), strict=True):
                for layer, area in zip(layers, areas.tolist(), strict=True):
                    yield {
                        "kind": "position",
                        "target": target,
                        "hook_point": hook_point,
                        "layer": layer,
                        "train": train,
                        "test": test.name,
                        "n": len(tested.rows),
                        "auroc": area,
                    }
