"""Probes of the variant itself: a manipulation check, as prompts that differ are bound to be told apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from emoprobe.analysis.probes.auroc import labelled_auroc
from emoprobe.analysis.probes.cells import Cells
from emoprobe.analysis.probes.discriminant import TrainingMoments
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
def probe_variant(
    cells: Cells, design: RowCodes, stats: TrainingMoments, plain: TrainingMoments, tasks: int
) -> VariantResult:
    """Train on all folds but one and name the variants of the rows of that one.

    Args:
        cells: the features.
        design: the rows.
        stats: its moments around variants.
        plain: those of a difference of means.
        tasks: how many control tasks.
    """
    present = np.unique(design.variant)
    dealt = control_tasks(design, len(present), tasks)
    labels = np.stack([np.searchsorted(present, design.variant), *([] if dealt is None else dealt)])
    units, classes = units_of(design, labels, len(present))
    training = torch.as_tensor(design.in_training[: design.folds]).float()
    counts = training @ units.T  # (folds, units)
    averages = training[:, None] * units / counts.clamp(min=1.0)[..., None]
    # The mean of a class is a mixture of the means of its units.
    mixing = counts[..., None] * classes / (counts @ classes).clamp(min=1.0)[:, None]
    vectors = [cells.mix(each.T) for each in averages]
    scores, weights = _class_scores(stats, vectors, averages, mixing)
    of_plain = _class_scores(plain, vectors, averages, mixing[..., : len(present)])[0]
    areas, diff_means, accuracy, control_accuracy = (torch.zeros(len(cells.x)) for _ in range(4))
    for fold in range(design.folds):
        test = design.fold == fold
        known, share = torch.as_tensor(labels[:, test]), float(test.mean())
        labels_of = (known[0] == torch.arange(len(present))[:, None]).to(torch.int64)
        named, *controls = torch.split(scores[fold], len(present), 2)
        areas += labelled_auroc(named.softmax(2).mT, labels_of).nanmean(1) / design.folds
        simple = of_plain[fold] * plain.covariance.factor[:, None, None]
        diff_means += labelled_auroc(simple.softmax(2).mT, labels_of).nanmean(1) / design.folds
        accuracy += share * (named.argmax(2) == known[0]).float().mean(1)
        for guessed, label in zip(controls, known[1:], strict=True):
            control_accuracy += share * (guessed.argmax(2) == label).float().mean(1) / tasks
    return VariantResult(
        areas.numpy(force=True),
        diff_means.numpy(force=True),
        accuracy.numpy(force=True),
        None if dealt is None else control_accuracy.numpy(force=True),
        weights[..., : len(present)],
    )


def units_of(design: RowCodes, labels: np.ndarray, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The fewest groups of rows that all classes of labels (tasks, n) are made of.

    Returns:
        which rows are in each, (units, n), and which units in each class of each task, (units, tasks · classes).
    """
    members = (labels[:, None] == np.arange(classes)[:, None]).reshape(-1, len(design)).astype(np.float32)
    texts = design.texts
    count = int(texts.max()) + 1
    if count > len(members):
        return torch.as_tensor(members), torch.eye(len(members))
    # A label depends on the text alone.
    first = np.unique(texts, return_index=True)[1]
    return torch.as_tensor(np.eye(count, dtype=np.float32)[:, texts]), torch.as_tensor(members[:, first].T.copy())


def control_tasks(design: RowCodes, classes: int, tasks: int) -> np.ndarray | None:
    """Labels that depend on the text alone, at random (Hewitt & Liang 2019), (tasks, n).

    Each text of each variant gets a class, all classes equally often. None where variants have one text each: then a
    control task is the task itself under other names, and selectivity is not defined.
    """
    texts = design.texts
    count = int(texts.max()) + 1
    if count < 2 * classes - 1:
        return None
    generator = np.random.default_rng(design.seed)
    return np.stack([generator.permutation(np.arange(count) % classes)[texts] for _ in range(tasks)])


def _class_scores(
    stats: TrainingMoments, vectors: list[torch.Tensor], averages: torch.Tensor, mixing: torch.Tensor
) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Discriminant scores x′S⁻¹m − ½ m′S⁻¹m of the rows that each fold holds out, and S⁻¹m (cells, folds, r, classes).

    A mean m is a mixture (folds, units, classes) of the `averages` (folds, units, n) that `vectors` hold.
    """
    scores, weights = [], []
    along = stats.along(averages.flatten(0, 1).T).view(-1, *averages.shape[:2], stats.covariance.x.shape[2])
    for fold, solution in enumerate(stats.solve(vectors)):
        inner = (mixing[fold] * (along[:, fold] @ solution.weights @ mixing[fold])).sum(1, keepdim=True)
        scores.append(solution.scores[fold] @ mixing[fold] - 0.5 * inner)
        weights.append(solution.weights @ mixing[fold])
    return scores, torch.stack(weights, 1)
