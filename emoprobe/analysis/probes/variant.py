"""Probes of the variant itself: a manipulation check, as prompts that differ are bound to be told apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from emoprobe.analysis.probes.auroc import labelled_auroc
from emoprobe.analysis.probes.discriminant import Cells, TrainingMoments
from emoprobe.analysis.probes.row_codes import RowCodes


@dataclass(frozen=True)
class VariantResult:
    """Of some cells, each (cells): areas (one variant against the rest, mean), of a probe and of differences of means,
    the share of rows whose variant is named, and the same on the control tasks (None where there are none).
    """

    areas: np.ndarray
    diff_means: np.ndarray
    accuracy: np.ndarray
    control_accuracy: np.ndarray | None
    weights: torch.Tensor


@torch.no_grad()
def probe_variant(cells: Cells, design: RowCodes, stats: TrainingMoments, tasks: int) -> VariantResult:
    """Train on all folds but one and name the variants of the rows of that one.

    Args:
        cells: the features.
        design: the rows.
        stats: its moments around variants.
        tasks: how many control tasks.
    """
    present = np.unique(design.variant)
    codes = np.searchsorted(present, design.variant)
    labels = torch.as_tensor(codes)
    dealt = control_tasks(design, len(present), tasks)
    controls = None if dealt is None else torch.as_tensor(dealt)
    areas, diff_means, accuracy = (torch.zeros(len(cells.x)) for _ in range(3))
    control_accuracy = torch.zeros(len(cells.x))
    weights = stats.weights(design.folds, present)
    for fold in range(design.folds):
        test = torch.as_tensor(design.fold == fold)
        averages, share = stats.averages[fold, present], float(test.sum()) / len(design)
        labels_of = (labels[test] == torch.arange(len(present))[:, None]).to(torch.int64)
        scores = _scores(stats.x, weights[:, fold], averages)[:, test]
        areas += labelled_auroc(scores.softmax(2).mT, labels_of).nanmean(1) / design.folds
        plain = _scores(cells.x, stats.means[:, fold, present].mT, averages)[:, test]
        diff_means += labelled_auroc(plain.softmax(2).mT, labels_of).nanmean(1) / design.folds
        accuracy += share * (scores.argmax(2) == labels[test]).float().mean(1)
        if controls is not None:
            members = (
                ~test & (controls[:, None] == torch.arange(len(present))[:, None])
            ).float()  # (tasks, classes, n)
            averages = (members / members.sum(2, keepdim=True).clamp(min=1.0)).flatten(0, 1)
            guessed = _scores(stats.x, stats.solve(fold, cells.mix(averages.T)), averages)[:, test]
            guesses = guessed.view(*guessed.shape[:2], *members.shape[:2]).argmax(3).mT
            control_accuracy += share * (guesses == controls[:, test]).float().mean((1, 2))
    return VariantResult(
        areas.numpy(force=True),
        diff_means.numpy(force=True),
        accuracy.numpy(force=True),
        None if controls is None else control_accuracy.numpy(force=True),
        weights,
    )


def control_tasks(design: RowCodes, classes: int, tasks: int) -> np.ndarray | None:
    """Labels that depend on the text alone, at random (Hewitt & Liang 2019), (tasks, n).

    Each text of each variant gets a class, all classes equally often. None where variants have one text each: then a
    control task is the task itself under other names, and selectivity is not defined.
    """
    texts = np.unique(np.stack([design.variant, design.paraphrase]), axis=1, return_inverse=True)[1].reshape(-1)
    count = int(texts.max()) + 1
    if count < 2 * classes - 1:
        return None
    generator = np.random.default_rng(design.seed)
    return np.stack([generator.permutation(np.arange(count) % classes)[texts] for _ in range(tasks)])


def _scores(x: torch.Tensor, weights: torch.Tensor, averages: torch.Tensor) -> torch.Tensor:
    """Discriminant scores (cells, n, classes): x′S⁻¹m − ½ m′S⁻¹m, where `averages` (classes, n) mixes m of the rows."""
    scores = x @ weights
    return scores - 0.5 * (averages * scores.mT).sum(2)[:, None]
