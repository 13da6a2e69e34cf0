"""Probes of correctness within questions: whether activations tell right from wrong answers to the same question.

A question that is hard is answered wrongly whatever is inside, so areas over all rows may come from the question alone.
Here rows are compared within blocks: the draws of a variant on a question, where there are several, or else the
variants of a question. Labels, nuisance features and activations are centred within blocks. The null deals labels anew
within blocks; across variants it keeps how many answers each question *and* each variant has right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from emoprobe.analysis.probes.cells import Cells
from emoprobe.analysis.probes.correct import CorrectDesign, FoldResult, residual_scores
from emoprobe.analysis.probes.discriminant import TrainingMoments, sums_by
from emoprobe.analysis.probes.nuisance import fitted, orthonormal
from emoprobe.analysis.probes.row_codes import RowCodes

ROUNDS = 40  # of trades between questions, after which labels no longer depend on where they were
LEAST_OF_A_TEXT = 3  # questions of each text, from which labels are only traded between questions of the same texts


@dataclass(frozen=True)
class WithinDesign:
    """The rows of the questions with right and wrong answers, and their labels and features centred within blocks.

    `pairs` (m, 2) are places of a right and a wrong row of one block, `correct` what `residual_scores` takes.
    """

    correct: CorrectDesign
    block: np.ndarray
    pairs: np.ndarray
    mixed: int

    @classmethod
    def of(cls, design: RowCodes, nuisance: np.ndarray, permutations: int) -> WithinDesign | None:
        """Choose the graded rows that were not cut off; None where no block has both outcomes in three folds.

        Args:
            design: the rows of a position.
            nuisance: a row for each of them, with a column for each variant.
            permutations: of the labels, besides the real ones.
        """
        rows, block = _mixed(design)
        if len(rows) == 0 or len(np.unique(design.fold[rows])) < min(3, design.folds):
            return None
        graded = design.take(rows)
        labels = graded.correct.astype(float)
        features, centred = _centred(nuisance[rows], block), _centred(labels[:, None], block)[:, 0]
        basis = orthonormal(features)
        dealt = _centred(dealt_labels(graded, block, permutations).T, block)
        correct = CorrectDesign(
            graded,
            len(design),
            rows,
            design.places_in_folds[rows],
            centred,
            features,
            basis,
            np.zeros((0, len(rows)), dtype=int),
            dealt - basis @ (basis.T @ dealt),
            np.stack([fitted(features, centred, training) for training in graded.in_training]),
        )
        pairs = [
            (one, other)
            for members in np.split(np.argsort(block, kind="stable"), np.cumsum(np.bincount(block))[:-1])
            for one in members[labels[members] == 1]
            for other in members[labels[members] == 0]
        ]
        return cls(correct, block, np.array(pairs), len(np.unique(graded.question)))

    def concordance(self, scores: torch.Tensor) -> torch.Tensor:
        """For each pair whether the right row scores higher, ties counted half: (cells, m) of scores (cells, n)."""
        right, wrong = (torch.as_tensor(np.ascontiguousarray(places)) for places in self.pairs.T)
        return 0.5 * (1 + torch.sign(scores[:, right] - scores[:, wrong]))


@dataclass(frozen=True)
class WithinResult(FoldResult):
    """Prediction within questions in some cells.

    `statistic` and `choice` are those of `AddedResult`; `areas`, `nuisance` and `added` are (cells, folds), the share
    of pairs in order by activations, by the nuisance features, and by both beyond the latter; `influence` (cells,
    groups) is that of each group on the mean of `added`.
    """

    statistic: np.ndarray
    choice: np.ndarray
    areas: np.ndarray
    nuisance: np.ndarray
    added: np.ndarray


@torch.no_grad()
def probe_within(cells: Cells, within: WithinDesign, shrunk: Sequence[TrainingMoments]) -> list[WithinResult]:
    """Train and test probes within blocks; `shrunk` are the moments of `probe_correct`."""
    rows = within.correct
    design = rows.design
    first = torch.as_tensor(within.pairs[:, 0])
    fold_of, group_of = torch.as_tensor(design.fold)[first], torch.as_tensor(design.group)[first]
    alone = torch.as_tensor(rows.predictions[design.fold, np.arange(len(design))].astype(np.float32))[None]
    less, results = within.concordance(alone), []
    for statistic, choice, scores in residual_scores(cells, rows, shrunk, within.block):
        own, gain = within.concordance(scores), within.concordance(alone + scores) - less
        areas, nuisance, added = (np.full((len(scores), design.folds), np.nan) for _ in range(3))
        influence = torch.zeros((len(scores), design.groups))
        for fold in range(design.folds):
            tested = fold_of == fold
            if not tested.any():
                continue
            for values, each in ((areas, own), (nuisance, less), (added, gain)):
                values[:, fold] = each[:, tested].mean(1).numpy(force=True)
            here = gain[:, tested]
            here = (here - here.mean(1, keepdim=True)) / int(tested.sum())
            influence += sums_by(group_of[tested], here[..., None], design.groups)[..., 0]
        valid = max(1, int(np.isfinite(areas[:1]).sum()))
        results.append(
            WithinResult(
                (influence / valid).numpy(force=True) * design.leverage, statistic, choice, areas, nuisance, added
            )
        )
    return results


def mixed_questions(design: RowCodes) -> int:
    """Return how many questions have right and wrong answers that were not cut off, within a block."""
    return len(np.unique(design.question[_mixed(design)[0]]))


def _mixed(design: RowCodes) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the blocks with right and wrong answers that were not cut off, and the code of each row's block."""
    known = np.flatnonzero((design.correct >= 0) & ~design.truncated)
    if not len(known):
        return known, known
    block = _blocks(design.take(known))
    right = np.bincount(block, design.correct[known])
    mixed = ((right > 0) & (right < np.bincount(block)))[block]
    return known[mixed], np.unique(block[mixed], return_inverse=True)[1].reshape(-1)


def _blocks(design: RowCodes) -> np.ndarray:
    """Codes of what rows are compared within: variants of a question where there are draws of it, else questions."""
    parts = [design.question, design.variant] if len(np.unique(design.draw)) > 1 else [design.question]
    codes: np.ndarray = np.unique(np.stack(parts), axis=1, return_inverse=True)[1].reshape(-1)
    return codes


def _centred(values: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Values (n, k) minus the mean of their block."""
    sums = np.zeros((int(block.max()) + 1, values.shape[1]))
    np.add.at(sums, block, values)
    centred: np.ndarray = values - (sums / np.bincount(block)[:, None])[block]
    return centred


def dealt_labels(design: RowCodes, block: np.ndarray, permutations: int) -> np.ndarray:
    """Labels dealt anew within blocks, (permutations + 1, n), the real ones first.

    Where blocks are questions, pairs of questions trade labels at random so that each question and each variant keeps
    as many right answers as it has (Strona et al. 2014); where every text has several questions, each text as well.
    """
    generator = np.random.default_rng(design.seed)
    real = np.broadcast_to(design.correct == 1, (permutations + 1, len(design)))
    if len(np.unique(design.draw)) > 1:
        dealt = real.copy()
        start = np.argsort(block, kind="stable")
        for number in range(1, permutations + 1):
            dealt[number, start] = real[0, np.lexsort([generator.random(len(block)), block])]
        return dealt.astype(float)
    count = int(block.max()) + 1
    labels = np.zeros((permutations + 1, count, len(design.variants)), dtype=bool)
    known = np.zeros(labels.shape[1:], dtype=bool)
    labels[:, block, design.variant] = real
    known[block, design.variant] = True
    texts = np.full(known.shape, -1)
    texts[block, design.variant] = design.paraphrase
    kinds = np.unique(texts, axis=0, return_inverse=True)[1].reshape(-1)
    if np.bincount(kinds).min() < LEAST_OF_A_TEXT:
        kinds = np.zeros(count, dtype=int)
    for _ in range(ROUNDS):
        order = np.lexsort([generator.random(count), kinds])
        one, other = order[:-1], order[1:]
        place = np.arange(len(one)) - np.searchsorted(kinds[order], kinds[order])[:-1]
        chosen = (kinds[one] == kinds[other]) & (place % 2 == 0)
        _trade(labels[1:], known, one[chosen], other[chosen], generator)
    return labels[:, block, design.variant].astype(float)


def _trade(
    labels: np.ndarray, known: np.ndarray, one: np.ndarray, other: np.ndarray, generator: np.random.Generator
) -> None:
    """Deal anew, between each pair of questions, the labels of the variants in which the two differ; in place."""
    first, second = labels[:, one], labels[:, other]
    differ = (first != second) & (known[one] & known[other])
    keys = np.where(differ, generator.random(differ.shape, dtype=np.float32), np.float32(2))
    wanted = (first & differ).sum(-1, keepdims=True)
    limit = np.take_along_axis(np.sort(keys, axis=-1), np.maximum(wanted - 1, 0), -1)
    taken = differ & (keys <= limit) & (wanted > 0)
    labels[:, one] = np.where(differ, taken, first)
    labels[:, other] = np.where(differ, ~taken, second)
