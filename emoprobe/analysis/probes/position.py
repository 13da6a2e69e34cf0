"""One position: the rows that have activations there, and every probe of it in a batch of layers.

Probing is pure, so positions can be worked on side by side.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from emoprobe.analysis.probes import transfer
from emoprobe.analysis.probes.cells import Cells
from emoprobe.analysis.probes.correct import (
    AddedResult,
    CorrectDesign,
    CorrectResult,
    has_both_classes,
    probe_added,
    probe_correct,
    strongest,
)
from emoprobe.analysis.probes.discriminant import TrainingMoments, variant_moments
from emoprobe.analysis.probes.nuisance import (
    MOST_COMPONENTS,
    RowTexts,
    answer_features,
    bag_of_words,
    nuisance_features,
    prompt_features,
    with_variants,
)
from emoprobe.analysis.probes.probe_design import is_response
from emoprobe.analysis.probes.row_codes import RowCodes
from emoprobe.analysis.probes.valence import ValenceDesign, ValenceResult, probe_valence
from emoprobe.analysis.probes.variant import VariantResult, probe_variant
from emoprobe.analysis.probes.within import WithinDesign, WithinResult, probe_within
from emoprobe.config.science.analysis import Probes, ProbeTarget


@dataclass(frozen=True)
class ProbedPosition:
    """Inputs of the probes at one position besides the activations.

    `rows` are the rows without a stand-in there. `valence`, `correct`, `untruncated` and `within` are None where there
    is nothing to probe; `untruncated` also where no answer was cut off, `within` also before the response. `reasons`
    says why, by target. `valence_nuisance` and `valence_words` are probes on the confounds of valence, and on the words
    of the texts.
    """

    name: str
    rows: np.ndarray
    design: RowCodes
    valence: ValenceDesign | None
    valence_nuisance: ValenceResult | None
    valence_words: ValenceResult | None
    correct: CorrectDesign | None
    untruncated: CorrectDesign | None
    within: WithinDesign | None
    any_truncated: bool
    reasons: dict[str, str]

    @classmethod
    def of(
        cls, name: str, table: pd.DataFrame, texts: RowTexts, whole: RowCodes, empty: np.ndarray, settings: Probes
    ) -> ProbedPosition:
        """For the rows of a table, with their texts, of which `empty` ones have a stand-in."""
        rows = np.flatnonzero(~empty)
        design, present = whole.take(rows), table.iloc[rows]
        reasons: dict[str, str] = {}
        nuisance = nuisance_features(present, design, is_response(name))
        valence = valence_nuisance = valence_words = correct = untruncated = within = None
        any_truncated = bool((design.truncated & (design.correct >= 0)).any())
        if "valence" in settings.targets:
            has_valence = design.valence[design.variant] != 0
            own_texts = [texts[row] if known else "" for row, known in zip(rows, has_valence, strict=True)]
            features = prompt_features(present, own_texts)
            if is_response(name):
                features |= answer_features(present)
            valence = ValenceDesign.of(design, settings.permutations, features) if design.folds > 2 else None
            if valence is None:
                reasons["valence"] = _why_no_valence(whole)
            else:
                baseline = partial(_valence_baseline, valence)
                valence_nuisance = baseline(list(features.values()))
                valence_words = baseline([bag_of_words([text or "" for text in own_texts], MOST_COMPONENTS)])
        if "correct" in settings.targets:
            controls = with_variants(nuisance, design)
            known = np.flatnonzero(design.correct >= 0)
            finished = np.flatnonzero((design.correct >= 0) & ~design.truncated)
            reason = has_both_classes(design.take(known), settings.min_per_class)
            if reason is not None:
                reasons["correct"] = reason
            else:
                correct = CorrectDesign.of(design, controls, known, settings.permutations)
                if any_truncated and has_both_classes(design.take(finished), settings.min_per_class) is None:
                    untruncated = CorrectDesign.of(design, controls, finished, settings.permutations)
                if is_response(name):
                    within = WithinDesign.of(design, controls, settings.permutations)
        return cls(
            name, rows, design, valence, valence_nuisance, valence_words, correct, untruncated, within, any_truncated,
            reasons,
        )  # fmt: skip


def positions_of(
    table: pd.DataFrame, texts: RowTexts, design: RowCodes, empty: dict[str, np.ndarray], settings: Probes
) -> list[ProbedPosition]:
    """Every position that any row has; those with the same rows and nuisance features share what they are made of."""
    made: dict[tuple[bytes, bool], ProbedPosition] = {}
    positions = []
    for name, missing in empty.items():
        if missing.all():
            continue
        key = (missing.tobytes(), is_response(name))
        if key not in made:
            made[key] = ProbedPosition.of(name, table, texts, design, missing, settings)
        positions.append(replace(made[key], name=name))
    return positions


def _valence_baseline(labelled: ValenceDesign, features: list[np.ndarray]) -> ValenceResult:
    """A probe of valence on features (n, …) of the position's rows instead of activations, as one cell.

    It is a difference of means: a feature that is constant within variants has no covariance around them.
    """
    rows = labelled.rows
    columns = np.column_stack([np.zeros(len(rows)), *(values[rows] for values in features)]).astype(np.float32)
    design = labelled.design
    cells = Cells.of(torch.as_tensor(columns)[None], design.fold)
    own = replace(labelled.without_confounds(), rows=np.arange(len(rows)), places=design.places_in_folds)
    plain = variant_moments(cells, design, 1.0)
    return probe_valence(cells, own, plain, plain)


def _why_no_valence(design: RowCodes) -> str:
    negative, positive = int((design.valence < 0).sum()), int((design.valence > 0).sum())
    if min(negative, positive) < 2:
        return f"{negative} negative and {positive} positive variants: one of each is left out, so two are needed"
    return "too few questions, or groups of them, that every variant with a valence has activations of"


@dataclass
class Probed:
    """Results of the probes at a position; None where there is nothing to probe.

    `weights` are those of each fold for raw features, (layers, folds, d, columns), by target; `directions` the means
    that are kept of them, (layers, d, columns), with the columns' names. `transfer` has rows for each layer.
    """

    d: int
    variant: VariantResult | None = None
    valence: ValenceResult | None = None
    correct: CorrectResult | None = None
    correct_diff_means: np.ndarray | None = None
    added: AddedResult | None = None
    untruncated: AddedResult | None = None
    within: WithinResult | None = None
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
    device: torch.device,
) -> Probed:
    """Run the probes of some targets; `weights` and `directions` are returned on the CPU.

    Args:
        features: activations (layers, n, d) of the position's rows, float32.
        position: the rows and what they are.
        settings: of the probes.
        targets: which of them.
        transfers: whether to test probes on texts and variants that they were not trained on.
        device: what computes.
    """
    # Tensors are made on the CPU unless another device is set, and to set it costs a call of Python for each operation.
    with device if device.type != "cpu" else nullcontext():
        return _probe(features.to(device), position, settings, targets, transfers)


def _probe(
    features: torch.Tensor, position: ProbedPosition, settings: Probes, targets: Collection[ProbeTarget],
    transfers: bool,
) -> Probed:  # fmt: skip
    design = position.design
    cells = Cells.of(features, design.fold)
    plain = variant_moments(cells, design, 1.0)
    moments = plain if settings.shrinkage == 1 else variant_moments(cells, design, settings.shrinkage)
    probed = Probed(cells.d, transfer=[[] for _ in features])
    if "variant" in targets:
        probed.variant = probe_variant(cells, design, moments, plain, settings.control_tasks)
        names = [design.variants[code] for code in np.unique(design.variant)]
        probed.directions["variant"] = names, moments.raw(probed.variant.weights.mean(1)).cpu()
    if "valence" in targets and position.valence is not None:
        rows = position.valence
        own, own_plain = moments, plain
        # Other questions have means of their own, so that variants are compared on the same ones.
        if (apart := rows.left_out(design)).any():
            own_plain = variant_moments(cells, design, 1.0, apart)
            own = own_plain if moments is plain else variant_moments(cells, design, settings.shrinkage, apart)
        probed.valence = probe_valence(cells, rows, own, own_plain)
        raw = own.raw(probed.valence.weights)
        probed.weights["valence"] = raw.cpu()
        direction = (raw.mean(1) * torch.as_tensor(rows.signs).float()).sum(2, keepdim=True)
        probed.directions["valence"] = ["positive"], direction.cpu()
        if transfers:
            _extend(probed.transfer, transfer.held_out_variants(probed.valence.by_pair, rows))
            _extend(probed.transfer, transfer.held_out_texts(rows, design, own))
    if "correct" in targets and position.correct is not None:
        shrunk = [plain] if settings.shrinkage == 1 else [moments, plain]
        _probe_correct(probed, cells, position, shrunk, transfers)
    return probed


def _probe_correct(
    probed: Probed, cells: Cells, position: ProbedPosition, shrunk: list[TrainingMoments], transfers: bool
) -> None:
    """Take in the probes of correctness, which choose their shrinkage; that of a difference of means is the last."""
    rows, design = position.correct, position.design
    assert rows is not None
    added = probe_added(cells, rows, shrunk)
    correct = probe_correct(cells, rows, shrunk)
    choice = [each.choice for each in added]
    probed.added, probed.correct = strongest(added, choice, design), strongest(correct, choice, design)
    probed.correct_diff_means = correct[-1].areas
    if position.untruncated is not None:
        untruncated = probe_added(cells, position.untruncated, shrunk)
        probed.untruncated = strongest(untruncated, [each.choice for each in untruncated], design)
    if position.within is not None:
        within = probe_within(cells, position.within, shrunk)
        probed.within = strongest(within, [each.choice for each in within], design)
    raw = probed.weights["correct"] = torch.from_numpy(probed.correct.weights)
    probed.directions["correct"] = ["correct"], raw.mean(1)
    if transfers:
        _extend(probed.transfer, transfer.correct_without_variant(cells, rows, shrunk, choice))


def _extend(rows: transfer.Rows, more: transfer.Rows) -> None:
    for row, other in zip(rows, more, strict=True):
        row += other
