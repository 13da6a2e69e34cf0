"""How well a judge guesses the variant of an answer, against guesses that know nothing.

A judge may name some variants more often than others, and a question has one answer of each. So its guesses are
compared with themselves: were the variants of the answers to a question exchanged at random, as many would be right as
if the answers told nothing. Questions are the units of that exchange. Draws of a question, and copies of it under other
ids, are no further ones, as a judge may guess the same of all of them: the first counts.
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from math import comb, factorial
from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.estimates import Floats
from emoprobe.analysis.questions import asked_in


def guessing(table: pd.DataFrame, column: str) -> dict[str, Any]:
    """Return the columns of the table `judges` about guesses.

    Args:
        table: the trajectories of the variants that there are to guess.
        column: with the guesses.
    """
    known = table[table[column].notna() & (table["draw"] == 1)]
    known = known.assign(sample_id=asked_in(known)).drop_duplicates(["sample_id", "variant"])
    known = known[known.groupby("sample_id")["variant"].transform("size") > 1]
    n = len(known)
    if not n:
        return {"guesses": 0}
    truth, names = pd.factorize(known["variant"])
    guess = names.get_indexer(pd.Index(known[column]))
    unit = known.groupby("sample_id").ngroup().to_numpy()
    named = np.zeros((unit.max() + 1, len(names)), dtype=np.int64)
    np.add.at(named, (unit[guess >= 0], guess[guess >= 0]), 1)
    there = np.zeros(named.shape, dtype=bool)
    there[unit, truth] = True
    alike, counts = np.unique(np.sort(np.where(there, named, -1), axis=1), axis=0, return_counts=True)
    units: Counter[tuple[int, ...]] = Counter()
    for times, count in zip(alike.tolist(), counts.tolist(), strict=True):
        units[tuple(one for one in times if one >= 0)] += count
    right = int((guess == truth).sum())
    chances = _right_by_chance(units)
    mean = float(np.arange(len(chances)) @ chances)
    p = float(np.clip(chances[right:].sum(), 0.0, 1.0))
    return {"guesses": n, "guessed": right / n, "guess_chance": mean / n, "guess_p": p}


def _right_by_chance(units: Counter[tuple[int, ...]]) -> Floats:
    """Return the probability of each number of right guesses, by units with the same numbers of guesses."""
    length = 1 + sum(len(named) * count for named, count in units.items())
    spectrum = np.ones(length // 2 + 1, dtype=complex)
    for named, count in units.items():
        spectrum *= np.fft.rfft(_of_unit(named), length) ** count
    return np.clip(np.fft.irfft(spectrum, length), 0.0, 1.0)


@cache
def _of_unit(named: tuple[int, ...]) -> Floats:
    """Return the probability of each number of right guesses in a random order of the variants of one question.

    The orders with exactly so many follow from the rook numbers by inclusion and exclusion (Riordan 1958): j answers
    are all right in as many ways as j variants, each with one of the answers that name it, can be chosen.

    Args:
        named: how often each variant of the question is named, as often as there are answers.
    """
    size = len(named)
    rooks = [1, *[0] * size]
    for times in named:
        for place in range(size, 0, -1):
            rooks[place] += times * rooks[place - 1]
    exactly = [
        sum(
            (-1) ** (more - number) * comb(more, number) * factorial(size - more) * rooks[more]
            for more in range(number, size + 1)
        )
        for number in range(size + 1)
    ]
    return np.array([ways / factorial(size) for ways in exactly])
