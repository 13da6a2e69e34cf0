"""Probes of correctness: whether activations tell more of it than length, truncation, format, words and question do.

The area of a probe alone says little: an activation that knows the answer was cut off knows that it is wrong. So what
is tested is what the activations add. Correctness is fitted on the nuisance features; a probe is trained on what that
leaves over, on activations with the nuisance taken out, and its score is correlated with what is left over on the fold
that is held out. The null deals blocks of questions of that remainder anew and takes the nuisance out of it again
(Freedman & Lane 1983), so that it keeps how rows of a question go together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import permutations
from typing import TypeVar

import numpy as np
import torch

from emoprobe.analysis.probes.auroc import influences, labelled_auroc
from emoprobe.analysis.probes.discriminant import Cells, TrainingMoments, sums_by
from emoprobe.analysis.probes.nuisance import fitted, orthonormal
from emoprobe.analysis.probes.row_codes import NONE, RowCodes


@dataclass(frozen=True)
class CorrectDesign:
    """The rows whose answers are graded, `rows` among those of the position.

    `nuisance` (n, k) are their nuisance features, `basis` an orthonormal basis of them, `remainders` (n, permutations)
    what they leave over of the labels, the real one first; `origin` (permutations, n) tells where labels come from.
    `predictions` (training sets, n) are the labels as fitted on each training set.
    """

    design: RowCodes
    rows: np.ndarray
    labels: np.ndarray
    nuisance: np.ndarray
    basis: np.ndarray
    origin: np.ndarray
    remainders: np.ndarray
    predictions: np.ndarray

    @classmethod
    def of(cls, design: RowCodes, nuisance: np.ndarray, rows: np.ndarray, permutations: int) -> CorrectDesign:
        """For `rows` of a design that are graded; `nuisance` has a row for each row of the design."""
        graded, features = design.take(rows), nuisance[rows]
        labels = graded.correct.astype(float)
        basis = orthonormal(features)
        origin = block_permutations(graded, permutations)
        first = labels - basis @ (basis.T @ labels)
        dealt = np.where(origin == NONE, 0.0, first[np.maximum(origin, 0)]).T
        return cls(
            graded,
            rows,
            labels,
            features,
            basis,
            origin,
            dealt - basis @ (basis.T @ dealt),
            np.stack([fitted(features, labels, training) for training in graded.in_training]),
        )

    def contrasts(self, labels: torch.Tensor, training: torch.Tensor, count: int) -> torch.Tensor:
        """`mean_differences` of labels (k, n) over the training rows (n), of all `count` rows, (count, k)."""
        whole = torch.zeros((count, len(labels)))
        whole[torch.as_tensor(self.rows)] = mean_differences(torch.where(training, labels, NONE))
        return whole

    def nuisance_areas(self) -> np.ndarray:
        """The area of the nuisance features alone on each held-out fold, (folds); NaN where it has one class."""
        return np.array(
            [
                float(labelled_auroc(_tensor(self.predictions[fold, test]), torch.as_tensor(self.labels[test])))
                for fold, test in ((fold, self.design.fold == fold) for fold in range(self.design.folds))
            ]
        )


def has_both_classes(design: RowCodes, least: int) -> str | None:
    """Return why there is no probe of correctness for these rows; None where there is one."""
    for value, name in ((1, "correct"), (0, "wrong")):
        questions = len(np.unique(design.question[design.correct == value]))
        if questions < least:
            return f"{name} answers in {questions} questions; {least} are needed"
    folds = [np.unique(design.correct[(design.fold == fold) & (design.correct >= 0)]) for fold in range(design.folds)]
    if design.folds < 3 or sum(len(each) == 2 for each in folds) < 2:
        return "too few questions or groups of them to be divided into folds with both classes"
    return None


@dataclass(frozen=True)
class FoldResult:
    """Results of probes in some cells, (cells, folds, …); `influence` (cells, groups) is that of each group."""

    influence: np.ndarray


Result = TypeVar("Result", bound=FoldResult)


@dataclass(frozen=True)
class AddedResult(FoldResult):
    """Gain from activations over the nuisance features in some cells.

    `statistic` (cells, permutations) is the mean correlation on held-out folds, the real one first; `choice`
    (cells, folds) the same inside of each training set; `added` (cells, folds) how much larger the area is with
    activations than without; `influence` is that on the mean of it.
    """

    statistic: np.ndarray
    choice: np.ndarray
    added: np.ndarray


@torch.no_grad()
def probe_added(cells: Cells, rows: CorrectDesign, stats: TrainingMoments) -> AddedResult:
    """Train and test probes on what the nuisance features leave over; `stats` are those of `probe_correct`."""
    statistic, choice, scores = residual_scores(cells, rows, stats)
    added, influence = _gains(scores, rows)
    return AddedResult(influence, statistic, choice, added)


def residual_scores(
    cells: Cells, rows: CorrectDesign, stats: TrainingMoments, block: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Return `statistic` and `choice` of an `AddedResult`, and scores (cells, n, folds).

    The covariance is that of all rows around their variants, before anything is taken out: it has no label, and one
    decomposition serves all probes of a position. Where a `block` (n) of each row is given, features are centred within
    it as well. Scores have the size that predicts best inside of their training set, as they are added to a prediction.
    """
    design, basis = rows.design, _tensor(rows.basis)
    within = None if block is None else torch.as_tensor(block)
    x = stats.rows(rows.rows)
    if within is not None:
        x = _centred(x, within)
    x = x - basis @ (basis.T @ x)
    remainders = _tensor(rows.remainders)
    statistic = torch.zeros((len(x), remainders.shape[1]))
    left = _tensor(rows.labels - rows.predictions).T
    scores = []
    choice, products, squares = (torch.zeros((len(x), design.folds)) for _ in range(3))
    for number, training in enumerate(torch.as_tensor(design.in_training)):
        outcomes = left[:, [number]]
        if number < design.folds:
            outcomes = torch.cat([outcomes, remainders], 1)
        # The covariance of features and remainders in the training set, as a mixture of rows.
        mixing = (outcomes - outcomes[training].mean(0)) * training[:, None] / training.sum()
        mixing = mixing - basis @ (basis.T @ mixing)
        if within is not None:
            mixing = _centred(mixing[None], within)[0]
        whole = torch.zeros((stats.x.shape[1], outcomes.shape[1]))
        whole[torch.as_tensor(rows.rows)] = mixing
        weights = stats.solve(number, cells.mix(whole))
        if number < design.folds:
            scores.append((x @ weights[..., :1])[..., 0])
            statistic += _correlation(x[:, ~training] @ weights[..., 1:], remainders[~training]) / design.folds
            continue
        for fold, other in permutations(design.left_out[number]):
            test = torch.as_tensor(design.fold == other)
            tested, truth = x[:, test] @ weights, left[test][:, [number]]
            choice[:, fold] += _correlation(tested, truth)[:, 0] / (design.folds - 1)
            tested = tested - tested.mean(1, keepdim=True)
            products[:, fold] += (tested * truth).sum((1, 2))
            squares[:, fold] += tested.square().sum((1, 2))
    size = (products / squares.clamp(min=torch.finfo(squares.dtype).tiny)).clamp(min=0.0)
    return statistic.numpy(force=True), choice.numpy(force=True), torch.stack(scores, 2) * size[:, None]


def _centred(x: torch.Tensor, block: torch.Tensor) -> torch.Tensor:
    """Values (cells, n, k) minus the mean of their block, of codes (n)."""
    counts = torch.bincount(block).to(x.dtype)[:, None]
    return x - (sums_by(block, x, len(counts)) / counts)[:, block]


def _correlation(scores: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """Of scores (cells, n, k) with remainders (n, k), (cells, k); 0 where one of them is constant."""
    scores, left = scores - scores.mean(1, keepdim=True), left - left.mean(0)
    size = scores.square().sum(1).sqrt() * left.square().sum(0).sqrt()
    return torch.where(size > 0, (scores * left).sum(1) / size.clamp(min=torch.finfo(size.dtype).tiny), 0.0)


def _gains(scores: torch.Tensor, rows: CorrectDesign) -> tuple[np.ndarray, np.ndarray]:
    """The gain in area on each fold (cells, folds), and the influence of each group on its mean (cells, groups)."""
    design, labels = rows.design, torch.as_tensor(rows.labels)
    places = torch.as_tensor(design.group)
    gains = np.full((len(scores), design.folds), np.nan)
    influence = torch.zeros((len(scores), design.groups))
    valid = 0
    for fold in range(design.folds):
        test = torch.as_tensor(design.fold == fold)
        truth, alone = labels[test], _tensor(rows.predictions[fold])[test]
        if not 0 < int(truth.sum()) < len(truth):
            continue
        both = alone + scores[:, test, fold]
        gains[:, fold] = (labelled_auroc(both, truth) - labelled_auroc(alone, truth)).numpy(force=True)
        own = influences(both, truth) - influences(alone[None], truth)
        influence += sums_by(places[test], own[..., None], design.groups)[..., 0]
        valid += 1
    return gains, (influence / max(1, valid)).numpy(force=True) * design.leverage


@dataclass(frozen=True)
class CorrectResult(FoldResult):
    """Probes on activations alone: areas and their null, influences, and the weights of each fold.

    `areas` are (cells, folds), `permuted` (cells, permutations), and `weights` (cells, folds, d, 1), for raw features.
    """

    areas: np.ndarray
    permuted: np.ndarray
    weights: np.ndarray


@torch.no_grad()
def probe_correct(cells: Cells, graded: CorrectDesign, stats: TrainingMoments) -> CorrectResult:
    """Train probes of correctness on activations alone; `stats` are the moments of all rows around their variants."""
    design, x = graded.design, stats.rows(graded.rows)
    dealt = torch.as_tensor(
        np.where(graded.origin == NONE, NONE, graded.labels[np.maximum(graded.origin, 0)])
    )  # (p, n)
    areas = np.full((len(x), design.folds), np.nan)
    permuted: list[torch.Tensor] = []
    places = torch.as_tensor(design.group)
    influence = torch.zeros((len(x), design.groups))
    weights = []
    for fold in range(design.folds):
        test = torch.as_tensor(design.fold == fold)
        slopes = stats.solve(fold, cells.mix(graded.contrasts(dealt, ~test, stats.x.shape[1])))
        weights.append(slopes[..., :1])
        tested = x[:, test] @ slopes
        every = labelled_auroc(tested.mT, dealt[:, test])
        permuted.append(every)
        areas[:, fold] = every[:, 0].numpy(force=True)
        truth = dealt[0, test]
        if 0 < int(truth.sum()) < len(truth):
            influence += sums_by(places[test], influences(tested[..., 0], truth)[..., None], design.groups)[..., 0]
    valid = max(1, int(np.isfinite(areas[:1]).sum()))
    return CorrectResult(
        (influence / valid).numpy(force=True) * design.leverage,
        areas,
        torch.stack(permuted, 2).nanmean(2).numpy(force=True),
        stats.raw(torch.stack(weights, 1)).numpy(force=True),
    )


def strongest(results: Sequence[Result], choice: Sequence[np.ndarray], design: RowCodes) -> Result:
    """Return the results of probes of several shrinkages as those of one probe.

    In each training set that is the probe with the largest `choice` (cells, folds) inside of it. The statistic of the
    test is the largest one, of the real labels and of each permutation alike, so that the test stays exact.
    """
    place = np.stack(choice).argmax(0)[None]
    fold_of = np.zeros(design.groups, dtype=int)
    fold_of[design.group] = design.fold
    merged: dict[str, np.ndarray] = {}
    for field in fields(results[0]):
        values = np.stack([getattr(result, field.name) for result in results])
        if field.name in ("statistic", "choice", "permuted"):
            merged[field.name] = values.max(0)
        else:
            chosen = place[..., fold_of] if field.name == "influence" else place
            wide = chosen.reshape(*chosen.shape, *[1] * (values.ndim - chosen.ndim))
            merged[field.name] = np.take_along_axis(values, wide, 0)[0]
    return type(results[0])(**merged)


def mean_differences(labels: torch.Tensor) -> torch.Tensor:
    """Return weights (n, k) of rows whose sum is the mean of those labelled 1 minus that of 0, for labels (k, n)."""
    one, zero = (labels == 1).float(), (labels == 0).float()
    mixing = one / one.sum(1, keepdim=True).clamp(min=1.0) - zero / zero.sum(1, keepdim=True).clamp(min=1.0)
    return mixing.T


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(values, dtype=np.float32))


def block_permutations(design: RowCodes, permutations: int) -> np.ndarray:
    """Return the row that each row takes its label from, (permutations + 1, n); first the rows themselves; −1: none.

    Questions change places as blocks, with the labels of all variants and draws, and the questions of a group move
    together: what rows of a block have in common stays. A group that takes over from a larger one gets some of its
    questions, one that takes over from a smaller one gets some twice.
    """
    generator = np.random.default_rng(design.seed)
    draws = int(design.draw.max()) + 1
    row_at = np.full((int(design.question.max()) + 1, len(design.variants), draws), NONE)
    row_at[design.question, design.variant, design.draw] = np.arange(len(design))
    members = [np.unique(design.question[design.group == group]) for group in np.unique(design.group)]
    alike = len({len(block) for block in members}) == 1
    sources = np.empty((permutations + 1, len(design)), dtype=int)
    sources[0] = np.arange(len(design))
    origin = np.arange(len(row_at))
    for number in range(1, permutations + 1):
        dealt = generator.permutation(len(members))
        if alike:
            origin[np.concatenate(members)] = generator.permuted(np.stack(members)[dealt], axis=1).ravel()
        else:
            for to, source in zip(members, dealt, strict=True):
                origin[to] = np.resize(generator.permutation(members[source]), len(to))
        sources[number] = row_at[origin[design.question], design.variant, design.draw]
    return sources
