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
from functools import cached_property
from itertools import permutations
from typing import TypeVar

import numpy as np
import torch

from emoprobe.analysis.probes.auroc import influences, labelled_auroc
from emoprobe.analysis.probes.cells import Cells
from emoprobe.analysis.probes.discriminant import Solution, TrainingMoments, sums_by
from emoprobe.analysis.probes.nuisance import fitted, orthonormal
from emoprobe.analysis.probes.row_codes import NONE, RowCodes


@dataclass(frozen=True)
class CorrectDesign:
    """The rows whose answers are graded, `rows` among the `count` of the position, `places` among those of their fold.

    `nuisance` (n, k) are their nuisance features, `basis` an orthonormal basis of them, `remainders` (n, permutations)
    what they leave over of the labels, the real one first; `origin` (permutations, n) tells where labels come from.
    `predictions` (training sets, n) are the labels as fitted on each training set.
    """

    design: RowCodes
    count: int
    rows: np.ndarray
    places: np.ndarray
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
            len(design),
            rows,
            design.places_in_folds[rows],
            labels,
            features,
            basis,
            origin,
            dealt - basis @ (basis.T @ dealt),
            np.stack([fitted(features, labels, training) for training in graded.in_training]),
        )

    @cached_property
    def dealt(self) -> np.ndarray:
        """The labels of each permutation, (permutations, n), the real ones first; −1: none."""
        dealt: np.ndarray = np.where(self.origin == NONE, NONE, self.labels[np.maximum(self.origin, 0)]).astype(np.int8)
        return dealt

    def contrasts(self, labels: torch.Tensor, training: torch.Tensor) -> torch.Tensor:
        """`mean_differences` of labels (k, n) over the training rows (n), of all rows of the position, (count, k)."""
        return self.spread(mean_differences(torch.where(training, labels, NONE)))

    def spread(self, weights: torch.Tensor) -> torch.Tensor:
        """Weights (n, k) as those of all rows of the position, (count, k)."""
        if len(self.rows) == self.count:
            return weights
        whole = torch.zeros((self.count, weights.shape[1]))
        whole[torch.as_tensor(self.rows)] = weights
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
            return f"{name} answers in {questions} question{'s' * (questions != 1)}; {least} are needed"
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
def probe_added(cells: Cells, rows: CorrectDesign, shrunk: Sequence[TrainingMoments]) -> list[AddedResult]:
    """Train and test probes on what the nuisance features leave over, of the shrinkages that `probe_correct` takes."""
    results = []
    for statistic, choice, scores in residual_scores(cells, rows, shrunk):
        added, influence = _gains(scores, rows)
        results.append(AddedResult(influence, statistic, choice, added))
    return results


def residual_scores(
    cells: Cells, rows: CorrectDesign, shrunk: Sequence[TrainingMoments], block: np.ndarray | None = None
) -> list[tuple[np.ndarray, np.ndarray, torch.Tensor]]:
    """Return `statistic` and `choice` of an `AddedResult` and scores (cells, n), for each shrinkage.

    The covariance is that of all rows around their variants, before anything is taken out: it has no label, and one
    decomposition serves all probes of a position. Where a `block` (n) of each row is given, features are centred within
    it as well; a block lies in one fold. A row's score is that of the probe that was trained without its fold, in the
    size that predicts best inside of that training set, as it is added to a prediction.
    """
    design, basis = rows.design, _tensor(rows.basis)
    remainders, left = _tensor(rows.remainders), _tensor(rows.labels - rows.predictions).T
    vectors = []
    for number, training in enumerate(torch.as_tensor(design.in_training)):
        outcomes = left[:, [number]]
        if number < design.folds:
            outcomes = torch.cat([outcomes, remainders], 1)
        # The covariance of features and remainders in the training set, as a mixture of rows.
        mixing = (outcomes - outcomes[training].mean(0)) * (training[:, None] / training.sum())
        mixing = mixing - basis @ (basis.T @ mixing)
        vectors.append(cells.mix(rows.spread(_centred(mixing[None], block)[0])))
    nuisance = rows.spread(_centred(basis[None], block)[0])
    return [_tested(rows, stats.solve(vectors), stats.along(nuisance), block) for stats in shrunk]


def _tested(
    rows: CorrectDesign, solutions: Sequence[Solution], nuisance: torch.Tensor, block: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Test what `residual_scores` trains; `nuisance` (cells, k, r) gives the scores of the basis."""
    design, basis = rows.design, _tensor(rows.basis)
    remainders, left = _tensor(rows.remainders), _tensor(rows.labels - rows.predictions)

    def tested(number: int, fold: int) -> torch.Tensor:
        """Scores of a fold's rows by activations with the nuisance taken out, (cells, rows, k)."""
        test, solution = design.fold == fold, solutions[number]
        scores = _centred(solution.scores[fold][:, rows.places[test]], None if block is None else block[test])
        return scores - basis[test] @ (nuisance @ solution.weights)

    scores = torch.zeros((len(nuisance), len(design)))
    statistic = torch.zeros((len(scores), remainders.shape[1]))
    choice, products, squares = (torch.zeros((len(scores), design.folds)) for _ in range(3))
    for number, out in enumerate(design.left_out):
        if number < design.folds:
            test = torch.as_tensor(design.fold == number)
            of_fold = tested(number, number)
            scores[:, test] = of_fold[..., 0]
            statistic += _correlation(of_fold[..., 1:], remainders[test]) / design.folds
            continue
        for fold, other in permutations(out):
            of_other, truth = tested(number, other), left[number, torch.as_tensor(design.fold == other)][:, None]
            choice[:, fold] += _correlation(of_other, truth)[:, 0] / (design.folds - 1)
            of_other = of_other - of_other.mean(1, keepdim=True)
            products[:, fold] += (of_other * truth).sum((1, 2))
            squares[:, fold] += of_other.square().sum((1, 2))
    size = (products / squares.clamp(min=torch.finfo(squares.dtype).tiny)).clamp(min=0.0)
    scores *= size[:, torch.as_tensor(design.fold)]
    return statistic.numpy(force=True), choice.numpy(force=True), scores


def _centred(x: torch.Tensor, block: np.ndarray | None) -> torch.Tensor:
    """Values (cells, n, k) minus the mean of their block, of codes (n), if there are any."""
    if block is None:
        return x
    codes = torch.as_tensor(block)
    counts = torch.bincount(codes).clamp(min=1).to(x.dtype)[:, None]
    return x - (sums_by(codes, x, len(counts)) / counts)[:, codes]


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
        both = alone + scores[:, test]
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
def probe_correct(cells: Cells, graded: CorrectDesign, shrunk: Sequence[TrainingMoments]) -> list[CorrectResult]:
    """Train probes of correctness on activations alone.

    Args:
        cells: the features.
        graded: the rows.
        shrunk: the moments of all rows around their variants, for each shrinkage.
    """
    design, dealt = graded.design, torch.as_tensor(graded.dealt)
    tests = [torch.as_tensor(design.fold == fold) for fold in range(design.folds)]
    vectors = [cells.mix(graded.contrasts(dealt, ~test)) for test in tests]
    groups, results = torch.as_tensor(design.group), []
    for stats in shrunk:
        solutions = stats.solve(vectors)
        permuted = torch.full((len(cells.x), len(dealt), design.folds), torch.nan)
        influence = torch.zeros((len(cells.x), design.groups))
        for fold, test in enumerate(tests):
            scores = solutions[fold].scores[fold][:, graded.places[design.fold == fold]]
            permuted[..., fold] = labelled_auroc(scores.mT, dealt[:, test])
            truth = dealt[0, test]
            if 0 < int(truth.sum()) < len(truth):
                influence += sums_by(groups[test], influences(scores[..., 0], truth)[..., None], design.groups)[..., 0]
        areas = permuted[:, 0]
        valid = max(1, int(torch.isfinite(areas[0]).sum()))
        weights = torch.stack([solution.weights[..., :1] for solution in solutions], 1)
        results.append(
            CorrectResult(
                (influence / valid).numpy(force=True) * design.leverage,
                areas.numpy(force=True),
                permuted.nanmean(2).numpy(force=True),
                stats.raw(weights).numpy(force=True),
            )
        )
    return results


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
