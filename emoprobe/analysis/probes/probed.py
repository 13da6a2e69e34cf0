"""Every probe of one position in a batch of layers: pure, so that positions can be worked on side by side."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import torch

from emoprobe.analysis.probes import transfer
from emoprobe.analysis.probes.correct import AddedResult, CorrectResult, probe_added, probe_correct
from emoprobe.analysis.probes.discriminant import Cells, variant_moments
from emoprobe.analysis.probes.position import ProbedPosition
from emoprobe.analysis.probes.valence import ValenceResult, probe_valence
from emoprobe.analysis.probes.variant import VariantResult, probe_variant
from emoprobe.config.science.analysis import Probes, ProbeTarget


@dataclass
class Probed:
    """What the probes of a position find; None where there is nothing to probe.

    `weights` are those of each fold for raw features, (layers, folds, d, columns), by target; `directions` the means
    that are kept of them, (layers, d, columns), with the columns' names. `transfer` has rows for each layer.
    """

    d: int
    variant: VariantResult | None = None
    valence: ValenceResult | None = None
    correct: CorrectResult | None = None
    added: AddedResult | None = None
    untruncated: AddedResult | None = None
    weights: dict[ProbeTarget, torch.Tensor] = field(default_factory=dict)
    directions: dict[ProbeTarget, tuple[list[str], torch.Tensor]] = field(default_factory=dict)
    transfer: transfer.Rows = field(default_factory=list)


@torch.no_grad()
def probe_position(
    features: torch.Tensor,
    position: ProbedPosition,
    settings: Probes,
    targets: Collection[ProbeTarget],
    transfers: bool,
) -> Probed:
    """Run the probes of some targets.

    Args:
        features: activations (layers, n, d) of the position's rows, float32.
        position: the rows and what they are.
        settings: of the probes.
        targets: which of them.
        transfers: whether to test probes on texts and variants that they were not trained on.
    """
    design = position.design
    cells = Cells.of(features)
    moments = variant_moments(cells, design, settings.shrinkage)
    found = Probed(cells.d, transfer=[[] for _ in features])
    if "variant" in targets:
        found.variant = probe_variant(cells, design, moments, settings.control_tasks)
        names = [design.variants[code] for code in np.unique(design.variant)]
        found.directions["variant"] = names, cells.raw(found.variant.weights.mean(1))
    if "valence" in targets and position.valence is not None:
        own = position.valence
        found.valence = probe_valence(cells, own, moments)
        raw = found.weights["valence"] = cells.raw(found.valence.weights)
        direction = (raw.mean(1) * torch.from_numpy(own.signs).float()).sum(2, keepdim=True)
        found.directions["valence"] = ["positive"], direction
        if transfers:
            _extend(found.transfer, transfer.held_out_variants(found.valence.by_pair, own))
            _extend(found.transfer, transfer.held_out_texts(cells, own, settings.shrinkage))
    if "correct" in targets and position.correct is not None:
        found.correct = probe_correct(cells, position.correct, moments)
        found.added = probe_added(cells, position.correct, settings.shrinkage)
        if position.untruncated is not None:
            found.untruncated = probe_added(cells, position.untruncated, settings.shrinkage)
        raw = found.weights["correct"] = cells.raw(found.correct.weights)
        found.directions["correct"] = ["correct"], raw.mean(1)
        if transfers:
            _extend(found.transfer, transfer.correct_without_variant(cells, position.correct, moments))
    return found


def _extend(rows: transfer.Rows, more: transfer.Rows) -> None:
    for own, other in zip(rows, more, strict=True):
        own += other
