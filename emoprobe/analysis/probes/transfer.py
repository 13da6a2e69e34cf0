"""Whether a probe reads a state or only words: tests at positions, on texts and on variants it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from emoprobe.analysis.probes.auroc import labelled_auroc
from emoprobe.analysis.probes.correct import CorrectDesign
from emoprobe.analysis.probes.discriminant import Cells, TrainingMoments, moments
from emoprobe.analysis.probes.row_codes import NONE, RowCodes
from emoprobe.analysis.probes.valence import Contrasts, ValenceDesign, pair_areas

Rows = list[list[dict[str, Any]]]  # for each cell its rows of the table


@torch.no_grad()
def valence_at(features: torch.Tensor, weights: list[torch.Tensor], tested: ValenceDesign) -> np.ndarray:
    """Areas (probes, cells) at one position of probes that were trained at others.

    Args:
        features: raw, (cells, n, d), of all rows of the position.
        weights: of each other position's probes for raw features, (cells, folds, d, variants).
        tested: the design at this position.
    """
    areas = []
    for fold, (slots, there) in enumerate(tested.slots):
        scores = features[:, tested.rows[slots.reshape(-1)]] @ torch.cat([each[:, fold] for each in weights], 2)
        by_probe = torch.cat(scores.chunk(len(weights), 2))
        own = np.arange(slots.size).reshape(slots.shape)
        areas.append(pair_areas(by_probe, own, there, tested.real).mean(1))
    mean: np.ndarray = torch.stack(areas).mean(0).view(len(weights), -1).numpy(force=True)
    return mean


@torch.no_grad()
def correct_at(features: torch.Tensor, weights: list[torch.Tensor], tested: CorrectDesign) -> np.ndarray:
    """The same for correctness; weights are (cells, folds, d, 1)."""
    areas = []
    for fold in range(tested.design.folds):
        test = tested.design.fold == fold
        scores = features[:, tested.rows[test]] @ torch.cat([each[:, fold] for each in weights], 2)
        areas.append(labelled_auroc(scores.movedim(2, 0), torch.as_tensor(tested.labels[test])))
    mean: np.ndarray = torch.stack(areas).nanmean(0).numpy(force=True)
    return mean


def held_out_variants(by_pair: np.ndarray, tested: ValenceDesign) -> Rows:
    """For each variant how well it is told from those of the other valence, it and they left out of the training.

    `by_pair` holds areas (cells, pairs, folds) of the real valences.
    """
    rows: Rows = [[] for _ in by_pair]
    codes = np.unique(tested.design.variant)
    for number, code in enumerate(codes):
        pairs = (tested.real.pairs == number).any(1)
        entry = {
            "kind": "variant",
            "target": "valence",
            "train": tested.design.variants[code],
            "n": int((tested.design.variant == code).sum()),
        }
        for cell, areas in enumerate(by_pair[:, pairs].mean((1, 2))):
            rows[cell].append(entry | {"auroc": float(areas)})
    return rows


@torch.no_grad()
def held_out_texts(cells: Cells, valence: ValenceDesign, whole: RowCodes, stats: TrainingMoments) -> Rows:
    """Valence on texts that were left out, of variants that were not: training leaves out one text of every variant.

    Texts go by question, so that the questions differ as well. `whole` are the rows of `stats`, also those without a
    valence.
    """
    rows: Rows = [[] for _ in cells.x]
    known = valence.design.paraphrase != NONE
    texts = np.unique(valence.design.paraphrase[known])
    if len(texts) < 2:
        return rows
    places = np.flatnonzero(known)
    design = valence.design.take(places).with_folds(np.searchsorted(texts, valence.design.paraphrase[places]))
    kept = replace(valence.without_confounds(), design=design, rows=valence.rows[places])
    if len(np.unique(design.variant)) < len(valence.signs):
        return rows
    fold = np.where(np.isin(whole.paraphrase, texts), np.searchsorted(texts, whole.paraphrase), len(texts))
    trained = moments(stats.covariance, fold, [(number,) for number in range(len(texts))])
    weights = trained.weights(len(texts), np.flatnonzero(whole.valence))
    positive, negative = valence.signs > 0, valence.signs < 0
    difference = positive / positive.sum() - negative / negative.sum()
    pairs = np.array([(low, high) for low in np.flatnonzero(negative) for high in np.flatnonzero(positive)])
    tested = Contrasts(pairs, np.tile(difference, (len(pairs), 1)))
    for number, text in enumerate(texts):
        slots, there = kept.slots[number]
        scores = stats.x[:, kept.rows[slots.reshape(-1)]] @ weights[:, number]
        areas = pair_areas(scores, np.arange(slots.size).reshape(slots.shape), there, tested).mean(1)
        entry = {
            "kind": "text",
            "target": "valence",
            "train": f"text {text}",
            "n": int((design.fold == number).sum()),
        }
        for cell, area in enumerate(areas.tolist()):
            rows[cell].append(entry | {"auroc": area})
    return rows


@torch.no_grad()
def correct_without_variant(
    cells: Cells, graded: CorrectDesign, shrunk: Sequence[TrainingMoments], choice: Sequence[np.ndarray]
) -> Rows:
    """Correctness of a variant's answers by probes that saw neither the variant nor the questions of the fold.

    Of several shrinkages the one with the largest `choice` (cells, folds) counts.
    """
    rows: Rows = [[] for _ in cells.x]
    design, place = graded.design, np.stack(choice).argmax(0)
    codes = np.unique(design.variant)
    if len(codes) < 3:
        return rows
    theirs = design.variant == codes[:, None]  # (codes, n)
    codes, theirs = (each[[len(np.unique(graded.labels[mine])) == 2 for mine in theirs]] for each in (codes, theirs))
    if not len(codes):
        return rows
    trained, tested = (
        torch.as_tensor(np.where(where, graded.labels, NONE)) for where in (~theirs, theirs)
    )  # fmt: skip
    areas = []
    for fold in range(design.folds):
        test = torch.as_tensor(design.fold == fold)
        places = torch.as_tensor(graded.rows)[test]
        contrasts = cells.mix(graded.contrasts(trained, ~test, len(cells.x[0])))
        each = [
            labelled_auroc((stats.x[:, places] @ stats.solve(fold, contrasts)).mT, tested[:, test]) for stats in shrunk
        ]
        areas.append(torch.stack(each)[place[:, fold], torch.arange(len(cells.x))])
    by_variant = torch.stack(areas).nanmean(0)  # (cells, codes)
    for number, code in enumerate(codes):
        entry = {
            "kind": "variant",
            "target": "correct",
            "train": design.variants[code],
            "n": int(theirs[number].sum()),
        }
        for cell, area in enumerate(by_variant[:, number].tolist()):
            rows[cell].append(entry | {"auroc": area})
    return rows
