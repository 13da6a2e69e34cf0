"""Whether a probe reads a state or only words: tests at positions, on texts and on variants it was not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from emoprobe.analysis.probes.auroc import labelled_auroc
from emoprobe.analysis.probes.correct import CorrectDesign, mean_differences
from emoprobe.analysis.probes.discriminant import Cells, TrainingMoments, moments
from emoprobe.analysis.probes.row_codes import NONE
from emoprobe.analysis.probes.valence import Contrasts, ValenceDesign, pair_areas

Rows = list[list[dict[str, Any]]]  # for each cell its rows of the table


@torch.no_grad()
def valence_at(features: torch.Tensor, weights: torch.Tensor, own: ValenceDesign) -> np.ndarray:
    """Areas (cells) at one position of probes that were trained at another.

    Args:
        features: raw, (cells, n, d), of the rows of `own.design`.
        weights: of the other position's probes for raw features, (cells, folds, d, variants).
        own: the design at this position.
    """
    areas = [
        pair_areas(features, weights[:, fold], *own.slots[fold], own.real).mean(1) for fold in range(own.design.folds)
    ]
    found: np.ndarray = torch.stack(areas).mean(0).numpy()
    return found


@torch.no_grad()
def correct_at(features: torch.Tensor, weights: torch.Tensor, own: CorrectDesign) -> np.ndarray:
    """The same for correctness; weights are (cells, folds, d, 1)."""
    areas = []
    for fold in range(own.design.folds):
        test = torch.from_numpy(own.design.fold == fold)
        scores = (features[:, test] @ weights[:, fold])[..., 0]
        areas.append(labelled_auroc(scores, torch.from_numpy(own.labels)[test]))
    found: np.ndarray = torch.stack(areas).nanmean(0).numpy()
    return found


def held_out_variants(by_pair: np.ndarray, own: ValenceDesign) -> Rows:
    """For each variant how well it is told from those of the other valence, it and they left out of the training.

    `by_pair` holds areas (cells, pairs, folds) of the real valences.
    """
    rows: Rows = [[] for _ in by_pair]
    codes = np.unique(own.design.variant)
    for number, code in enumerate(codes):
        pairs = (own.real.pairs == number).any(1)
        entry = {
            "kind": "variant",
            "target": "valence",
            "train": own.design.variants[code],
            "n": int((own.design.variant == code).sum()),
        }
        for cell, areas in enumerate(by_pair[:, pairs].mean((1, 2))):
            rows[cell].append(entry | {"auroc": float(areas)})
    return rows


@torch.no_grad()
def held_out_texts(cells: Cells, own: ValenceDesign, shrinkage: float) -> Rows:
    """Valence on texts that were left out, of variants that were not: training leaves out one text of every variant.

    Texts go by question, so that the questions differ as well.
    """
    rows: Rows = [[] for _ in cells.x]
    known = own.design.paraphrase != NONE
    texts = np.unique(own.design.paraphrase[known])
    if len(texts) < 2:
        return rows
    places = np.flatnonzero(known)
    design = own.design.take(places).with_folds(np.searchsorted(texts, own.design.paraphrase[places]))
    kept = ValenceDesign(design, own.rows[places], own.signs, own.splits[:1])
    if len(np.unique(design.variant)) < len(own.signs):
        return rows
    x = cells.x[:, kept.rows]
    found = moments(x, design, kept.codes, shrinkage, cells.d, design.folds, len(own.signs))
    weights = found.weights(design.folds)
    positive, negative = own.signs > 0, own.signs < 0
    whole = positive / positive.sum() - negative / negative.sum()
    pairs = np.array([(low, high) for low in np.flatnonzero(negative) for high in np.flatnonzero(positive)])
    tested = Contrasts(pairs, np.tile(whole, (len(pairs), 1)))
    for fold, text in enumerate(texts):
        areas = pair_areas(x, weights[:, fold], *kept.slots[fold], tested).mean(1)
        entry = {
            "kind": "text",
            "target": "valence",
            "train": f"text {text}",
            "n": int((design.fold == fold).sum()),
        }
        for cell, area in enumerate(areas.tolist()):
            rows[cell].append(entry | {"auroc": area})
    return rows


@torch.no_grad()
def correct_without_variant(cells: Cells, own: CorrectDesign, found: TrainingMoments) -> Rows:
    """Correctness of a variant's answers by probes that saw neither the variant nor the questions of the fold."""
    rows: Rows = [[] for _ in cells.x]
    design, x = own.design, cells.x[:, own.rows]
    codes = np.unique(design.variant)
    if len(codes) < 3:
        return rows
    theirs = design.variant == codes[:, None]  # (codes, n)
    codes, theirs = (each[[len(np.unique(own.labels[mine])) == 2 for mine in theirs]] for each in (codes, theirs))
    if not len(codes):
        return rows
    trained, tested = (
        torch.from_numpy(np.where(where, own.labels, NONE)) for where in (~theirs, theirs)
    )  # fmt: skip
    areas = []
    for fold in range(design.folds):
        test = torch.from_numpy(design.fold == fold)
        slopes = found.solve(fold, mean_differences(x[:, ~test], trained[:, ~test]))
        areas.append(labelled_auroc((x[:, test] @ slopes).mT, tested[:, test]))
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
