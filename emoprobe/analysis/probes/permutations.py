"""Labels dealt out anew: valences over variants, correctness over questions."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from emoprobe.analysis.probes.probe_design import count_splits
from emoprobe.analysis.probes.row_codes import NONE, RowCodes


def splits(signs: np.ndarray, permutations: int, seed: int) -> np.ndarray:
    """Ways to deal valences to variants, (ways, variants) of −1 and 1, the real one first.

    All of them where there are no more than `permutations` besides the real one, else so many at random, all different.
    Classes of equal size that change names are one way: the area under the curve is the same.
    """
    count, positive = len(signs), int((signs > 0).sum())
    equal = 2 * positive == count
    real = _canonical(frozenset(np.flatnonzero(signs > 0).tolist()), count, equal)
    found = [real]
    if count_splits(count - positive, positive) <= permutations + 1:
        every = (_canonical(frozenset(chosen), count, equal) for chosen in combinations(range(count), positive))
        found += [way for way in dict.fromkeys(every) if way != real]
    else:
        generator, seen = np.random.default_rng(seed), {real}
        while len(found) <= permutations:
            drawn = frozenset(generator.choice(count, positive, replace=False).tolist())
            way = _canonical(drawn, count, equal)
            if way not in seen:
                seen.add(way)
                found.append(way)
    result = np.full((len(found), count), -1)
    for row, way in enumerate(found):
        result[row, sorted(way)] = 1
    return result


def _canonical(positive: frozenset[int], count: int, equal: bool) -> frozenset[int]:
    if equal and 0 in positive:
        return frozenset(range(count)) - positive
    return positive


def block_permutations(design: RowCodes, permutations: int) -> np.ndarray:
    """Where each row takes its label from, (permutations + 1, n), the rows themselves first; −1: from nowhere.

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
    found = np.empty((permutations + 1, len(design)), dtype=int)
    found[0] = np.arange(len(design))
    origin = np.arange(len(row_at))
    for number in range(1, permutations + 1):
        dealt = generator.permutation(len(members))
        if alike:
            origin[np.concatenate(members)] = generator.permuted(np.stack(members)[dealt], axis=1).ravel()
        else:
            for to, source in zip(members, dealt, strict=True):
                origin[to] = np.resize(generator.permutation(members[source]), len(to))
        found[number] = row_at[origin[design.question], design.variant, design.draw]
    return found
