"""Whether a probe reads a state or only words: tests at positions, on texts and on variants it was not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from emoprobe.analysis.probes.auroc import labelled_auroc
from emoprobe.analysis.probes.cells import Cells
from emoprobe.analysis.probes.correct import CorrectDesign
from emoprobe.analysis.probes.discriminant import TrainingMoments, moments
from emoprobe.analysis.probes.row_codes import NONE, RowCodes, places_in
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
    scores = _scores(features, weights)
    areas = []
    for fold, (slots, there) in enumerate(tested.slots):
        of_fold = scores[:, :, fold, tested.rows[slots.reshape(-1)]].flatten(0, 1)
        areas.append(pair_areas(of_fold.view(len(of_fold), *slots.shape, -1), there, tested.real).mean(1))
    mean: np.ndarray = torch.stack(areas).mean(0).view(len(weights), -1).numpy(force=True)
    return mean


@torch.no_grad()
def correct_at(features: torch.Tensor, weights: list[torch.Tensor], tested: CorrectDesign) -> np.ndarray:
    """The same for correctness; weights are (cells, folds, d, 1)."""
    scores = _scores(features, weights)
    areas = []
    for fold in range(tested.design.folds):
        test = tested.design.fold == fold
        of_fold = scores[:, :, fold, tested.rows[test], 0]
        areas.append(labelled_auroc(of_fold, torch.as_tensor(tested.labels[test])))
    mean: np.ndarray = torch.stack(areas).nanmean(0).numpy(force=True)
    return mean


def _scores(features: torch.Tensor, weights: list[torch.Tensor]) -> torch.Tensor:
    """Of all rows by the weights of each fold, (probes, cells, folds, n, columns).

    One product: to choose rows of a fold first would take longer than the products of the others.
    """
    whole = torch.stack(weights, 1)  # (cells, probes, folds, d, columns)
    scores = features @ whole.movedim(3, 1).flatten(2)
    return scores.view(*features.shape[:2], *whole.shape[1:3], -1).permute(2, 0, 3, 1, 4)


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
def held_out_texts(valence: ValenceDesign, whole: RowCodes, stats: TrainingMoments) -> Rows:
    """Valence on texts that were left out, of variants that were not: training leaves out one text of every variant.

    Texts go by question, so that the questions differ as well. `whole` are the rows of `stats`, also those without a
    valence.
    """
    rows: Rows = [[] for _ in stats.covariance.x]
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
    kept = replace(kept, places=places_in(fold)[kept.rows])
    trained = moments(stats.covariance, fold, [(number,) for number in range(len(texts))])
    means = trained.means[:, :, np.flatnonzero(whole.valence)].mT
    solutions = trained.solve([means[:, number] for number in range(len(texts))])
    positive, negative = valence.signs > 0, valence.signs < 0
    difference = positive / positive.sum() - negative / negative.sum()
    pairs = np.array([(low, high) for low in np.flatnonzero(negative) for high in np.flatnonzero(positive)])
    tested = Contrasts(pairs, np.tile(difference, (len(pairs), 1)))
    for number, text in enumerate(texts):
        scores = kept.by_variant(solutions[number], number, None)
        areas = pair_areas(scores, kept.slots[number][1], tested).mean(1)
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
    tests = [design.fold == fold for fold in range(design.folds)]
    vectors = [cells.mix(graded.contrasts(trained, torch.as_tensor(~test))) for test in tests]
    solutions = [stats.solve(vectors) for stats in shrunk]
    areas = []
    for fold, test in enumerate(tests):
        each = [
            labelled_auroc(solved[fold].scores[fold][:, graded.places[test]].mT, tested[:, torch.as_tensor(test)])
            for solved in solutions
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
