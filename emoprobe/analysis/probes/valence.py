"""Probes of valence: negative against positive variants, judged on a variant of each that they were not trained on.

A variant is the unit: all its rows have one label. For every pair of a negative and a positive variant and every fold
of questions a probe is trained on the other variants and questions, and its scores of the pair's rows on that fold are
compared. A permutation deals the valences to the variants anew and does the same. `confounds` are taken out before.
Where every variant has an arousal, pairs are of one arousal and permutations stay within it, so that a probe of arousal
gains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import combinations, product

import numpy as np
import torch

from emoprobe.analysis.probes.auroc import wins
from emoprobe.analysis.probes.cells import Cells
from emoprobe.analysis.probes.confounds import Confounds
from emoprobe.analysis.probes.discriminant import Solution, TrainingMoments, sums_by
from emoprobe.analysis.probes.probe_design import count_splits
from emoprobe.analysis.probes.row_codes import NONE, RowCodes

CONTRASTS = 512  # that are tested together
LEAST_TO_TRAIN = 2  # variants of each valence: one to train on, one to test on


@dataclass(frozen=True)
class Contrasts:
    """Probes to test: `pairs` (L, 2) are the negative and the positive variant that are left out.

    `weights` (L, variants) are those of the variants' means in δ: 1/n of the positive ones, −1/n of the negative ones.
    """

    pairs: np.ndarray
    weights: np.ndarray


@lru_cache(maxsize=1 << 14)
def contrasts(valences: tuple[int, ...], strata: tuple[int, ...], without: tuple[int, ...] = ()) -> Contrasts:
    """Return every pair of variants of opposite valences (−1, 1) of a stratum, with the contrast between all others.

    `without` are left out of pairs and contrasts.
    """
    signs = np.array(valences)
    pairs, weights = [], []
    for low in np.flatnonzero(signs < 0):
        for high in np.flatnonzero(signs > 0):
            if low in without or high in without or strata[low] != strata[high]:
                continue
            kept = ~np.isin(np.arange(len(signs)), [low, high, *without])
            positive, negative = kept & (signs > 0), kept & (signs < 0)
            if positive.any() and negative.any():
                pairs.append((low, high))
                weights.append(positive / positive.sum() - negative / negative.sum())
    return Contrasts(np.array(pairs).reshape(-1, 2), np.array(weights).reshape(-1, len(signs)))


@dataclass(frozen=True)
class ValenceDesign:
    """The rows of the variants with a valence, and how valences are dealt to them.

    `rows` are their places among the rows of the position, `places` among those of their fold; `confounds` are taken
    out of their activations, if any.
    """

    design: RowCodes
    rows: np.ndarray
    places: np.ndarray
    signs: np.ndarray
    strata: np.ndarray
    splits: np.ndarray
    confounds: Confounds | None = None

    @classmethod
    def of(
        cls, design: RowCodes, permutations: int, features: Mapping[str, np.ndarray] | None = None
    ) -> ValenceDesign | None:
        """Return None where a valence has too few variants, or a fold no question with rows of all of them.

        Only such questions count: where long prompts fail in some variants, what distinguishes questions would
        distinguish these variants. `features` have a row for each of the design's.
        """
        chosen = np.flatnonzero(design.valence)
        signs = design.valence[chosen]
        if min((signs < 0).sum(), (signs > 0).sum()) < LEAST_TO_TRAIN or not np.isin(chosen, design.variant).all():
            return None
        rows = np.flatnonzero(np.isin(design.variant, chosen) & ~design.lacks(chosen))
        if len(np.unique(design.fold[rows])) < design.folds:
            return None
        strata = design.stratum[chosen]
        dealt, places = splits(signs, strata, permutations, design.seed), design.places_in_folds[rows]
        labelled = cls(design.take(rows), rows, places, signs, strata, dealt)
        if not len(labelled.real.pairs):
            return None
        own = {name: values[rows] for name, values in (features or {}).items() if np.ptp(values[rows]) > 0}
        if not own:
            return labelled
        return replace(labelled, confounds=Confounds.of(own, labelled.codes, signs))

    def left_out(self, design: RowCodes) -> np.ndarray:
        """Which rows of the position have a valence and do not count, (n,)."""
        out = np.asarray(design.valence[design.variant] != 0)
        out[self.rows] = False
        return out

    def without_confounds(self) -> ValenceDesign:
        """The same for the real valences alone, with the activations as they are."""
        return replace(self, splits=self.splits[:1], confounds=None)

    @cached_property
    def codes(self) -> np.ndarray:
        """The variant of each row, from 0 over those with a valence."""
        return np.searchsorted(np.unique(self.design.variant), self.design.variant)

    @cached_property
    def confound_means(self) -> np.ndarray:
        """The confounds' mean over each variant's rows in each training set, (training sets, variants, k)."""
        assert self.confounds is not None
        members = np.eye(len(self.signs))[self.codes]
        within = self.design.in_training[:, :, None] * members
        means = np.einsum("snv,nk->svk", within, self.confounds.features) / np.maximum(within.sum(1), 1)[..., None]
        result: np.ndarray = means.astype(np.float32)
        return result

    def solver(self, count: int) -> torch.Tensor:
        """What gives the slopes of the confounds, of all `count` rows of the position, (count, k)."""
        assert self.confounds is not None
        whole = torch.zeros((count, len(self.confounds.solver)))
        whole[torch.as_tensor(self.rows)] = torch.as_tensor(self.confounds.solver.T.astype(np.float32))
        return whole

    def by_variant(self, solution: Solution, fold: int, slopes: torch.Tensor | None) -> torch.Tensor:
        """Scores of the rows in each slot of a fold, (cells, variants, m, k).

        `slopes` (cells, k, r) give those of the scores along the confounds, where what they predict is taken out.
        """
        slots = self.slots[fold][0]
        scores = solution.scores[fold][:, self.places[slots.reshape(-1)]]
        if slopes is not None:
            assert self.confounds is not None
            features = torch.as_tensor(self.confounds.features[slots.reshape(-1)].astype(np.float32))
            scores = scores - features @ (slopes @ solution.weights)
        return scores.view(len(scores), *slots.shape, -1)

    @cached_property
    def slots(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each fold the rows of each variant, (variants, most rows), and which of them there are."""
        tables = []
        for fold in range(self.design.folds):
            by_variant = [
                np.flatnonzero((self.codes == code) & (self.design.fold == fold)) for code in range(len(self.signs))
            ]
            width = max(len(rows) for rows in by_variant)
            table = np.full((len(by_variant), width), NONE)
            for code, rows in enumerate(by_variant):
                table[code, : len(rows)] = rows
            tables.append((np.maximum(table, 0), table != NONE))
        return tables

    @cached_property
    def permuted(self) -> tuple[Contrasts, np.ndarray]:
        """The contrasts of all splits, and to which split each belongs. Those of the real one come first."""
        parts = [contrasts(tuple(split), tuple(self.strata.tolist())) for split in self.splits.tolist()]
        whole = Contrasts(np.concatenate([p.pairs for p in parts]), np.concatenate([p.weights for p in parts]))
        return whole, np.repeat(np.arange(len(parts)), [len(part.pairs) for part in parts])

    @cached_property
    def real(self) -> Contrasts:
        """The contrasts of the real valences."""
        return contrasts(tuple(self.signs.tolist()), tuple(self.strata.tolist()))


@dataclass(frozen=True)
class ValenceResult:
    """Areas of some cells.

    `permuted` is (cells, splits), the real one first; `by_pair` and `diff_means` are (cells, pairs, folds), and
    `choice` (cells, pairs, folds) is the area inside of each training set. `weights` (cells, folds, r, variants) are
    S⁻¹ times the variants' means, with what confounds predict still in them.
    """

    permuted: np.ndarray
    by_pair: np.ndarray
    diff_means: np.ndarray
    choice: np.ndarray
    weights: torch.Tensor


@torch.no_grad()
def probe_valence(
    cells: Cells, labelled: ValenceDesign, stats: TrainingMoments, plain: TrainingMoments
) -> ValenceResult:
    """Test probes of valence in some cells.

    Args:
        cells: the features.
        labelled: the rows.
        stats: the moments of all rows around their variants.
        plain: those of a difference of means.
    """
    design, chosen = labelled.design, np.flatnonzero(labelled.design.valence)
    means, folds = stats.means[:, :, chosen].mT, design.folds
    whole = stats.solve([means[:, fold] for fold in range(folds)])
    slopes = plain_slopes = None
    if labelled.confounds is not None:
        solver = labelled.solver(len(cells.order))
        slopes, plain_slopes = stats.along(solver), plain.along(solver)
        predicted = cells.mix(solver)[:, None] @ torch.as_tensor(labelled.confound_means).mT
        means = means - predicted  # (cells, sets, r, variants)
    solutions = stats.solve([means[:, number] for number in range(len(design.left_out))])
    differences = plain.solve([means[:, fold] for fold in range(folds)])
    every, split_of = labelled.permuted
    real = labelled.real
    permuted = torch.zeros((len(cells.x), len(every.pairs)))
    by_pair, diff_means = [], []
    for fold in range(folds):
        there = labelled.slots[fold][1]
        areas = pair_areas(labelled.by_variant(solutions[fold], fold, slopes), there, every)
        permuted += areas / folds
        by_pair.append(areas[:, : len(real.pairs)])
        diff_means.append(pair_areas(labelled.by_variant(differences[fold], fold, plain_slopes), there, real))
    sums = sums_by(torch.as_tensor(split_of), permuted[..., None], len(labelled.splits))[..., 0]
    return ValenceResult(
        permuted=(sums / torch.as_tensor(np.bincount(split_of))).numpy(force=True),
        by_pair=torch.stack(by_pair, 2).numpy(force=True),
        diff_means=torch.stack(diff_means, 2).numpy(force=True),
        choice=_choice(solutions, slopes, labelled),
        weights=torch.stack([solution.weights for solution in whole], 1),
    )


def pair_areas(scores: torch.Tensor, there: np.ndarray, tested: Contrasts) -> torch.Tensor:
    """The area of each contrast on its own pair's rows of one fold, (cells, contrasts).

    Args:
        scores: of each variant's rows, a column for each variant, (cells, variants, m, variants).
        there: which of the rows there are, (variants, m), the first ones.
        tested: the contrasts.
    """
    areas = []
    for begin in range(0, len(tested.pairs), CONTRASTS):
        low, high = tested.pairs[begin : begin + CONTRASTS].T
        weights = torch.as_tensor(tested.weights[begin : begin + CONTRASTS, None].astype(np.float32))
        # A row that is not there wins nothing as a positive one and loses nothing as a negative one.
        negative = (scores[:, low] * weights).sum(-1).masked_fill(torch.as_tensor(~there[low]), torch.inf)
        positive = (scores[:, high] * weights).sum(-1).masked_fill(torch.as_tensor(~there[high]), -torch.inf)
        pairs = torch.as_tensor(there[low].sum(1) * there[high].sum(1))
        # A pair without rows on this fold says nothing: it counts as neither way.
        areas.append(torch.where(pairs > 0, wins(positive, negative).sum(-1) / pairs.clamp(min=1), 0.5))
    return torch.cat(areas, 1)


def _choice(solutions: Sequence[Solution], slopes: torch.Tensor | None, labelled: ValenceDesign) -> np.ndarray:
    """The area of each cell inside of each training set, over its own pairs and folds, (cells, pairs, folds).

    `solutions` are those of each training set, with a column for each variant.
    """
    design, real = labelled.design, labelled.real
    cells = len(solutions[0].weights)
    signs, strata = tuple(labelled.signs.tolist()), tuple(labelled.strata.tolist())
    inner = [contrasts(signs, strata, (low, high)) for low, high in real.pairs.tolist()]
    sizes = [len(part.pairs) for part in inner]
    if not all(sizes):
        return np.full((cells, len(real.pairs), design.folds), np.nan)
    whole = Contrasts(np.concatenate([p.pairs for p in inner]), np.concatenate([p.weights for p in inner]))
    outer = torch.as_tensor(np.repeat(np.arange(len(inner)), sizes))
    criterion = torch.zeros((cells, len(inner), design.folds))
    for fold in range(design.folds):
        total = torch.zeros((cells, len(whole.pairs)))
        for other in range(design.folds):
            if other != fold:
                solution = solutions[design.training_set(fold, other)]
                total += pair_areas(labelled.by_variant(solution, other, slopes), labelled.slots[other][1], whole)
        criterion[:, :, fold] = sums_by(outer, total[..., None], len(inner))[..., 0]
    result: np.ndarray = (criterion / torch.tensor(sizes)[:, None] / (design.folds - 1)).numpy(force=True)
    return result


def splits(signs: np.ndarray, strata: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Ways to deal valences to variants within strata, (ways, variants) of −1 and 1, the real one first.

    All of them where there are no more than `permutations` besides the real one, else so many at random, all different.
    Where all signs can be exchanged, that is the same way: the area under the curve is the same.
    """
    members = [np.flatnonzero(strata == code) for code in np.unique(strata)]
    counts = [int((signs[places] > 0).sum()) for places in members]
    sizes = [(len(places) - count, count) for places, count in zip(members, counts, strict=True)]
    equal = all(negative == positive for negative, positive in sizes)
    real = _canonical(frozenset(np.flatnonzero(signs > 0).tolist()), len(signs), equal)
    ways = [real]
    if count_splits(sizes) <= permutations + 1:
        chosen = [combinations(places.tolist(), count) for places, count in zip(members, counts, strict=True)]
        every = (_canonical(frozenset().union(*parts), len(signs), equal) for parts in product(*chosen))
        ways += [way for way in dict.fromkeys(every) if way != real]
    else:
        generator, seen = np.random.default_rng(seed), {real}
        while len(ways) <= permutations:
            drawn = [
                generator.choice(places, count, replace=False) for places, count in zip(members, counts, strict=True)
            ]
            way = _canonical(frozenset(np.concatenate(drawn).tolist()), len(signs), equal)
            if way not in seen:
                seen.add(way)
                ways.append(way)
    result = np.full((len(ways), len(signs)), -1)
    for row, way in enumerate(ways):
        result[row, sorted(way)] = 1
    return result


def _canonical(positive: frozenset[int], count: int, equal: bool) -> frozenset[int]:
    if equal and 0 in positive:
        return frozenset(range(count)) - positive
    return positive
