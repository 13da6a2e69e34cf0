"""The best cell of a search over layers, positions and hook points, and the largest statistic of each permutation."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Place = dict[str, Any]  # hook_point, position, layer


@dataclass
class CellChoice:
    """Select the best cell in each training set, and keep its values on the rows that are held out.

    Cells come in batches; only the best so far is kept, for each training set.
    """

    best: np.ndarray | None = None
    values: dict[str, np.ndarray] = field(default_factory=dict)
    places: dict[tuple[int, ...], Place] = field(default_factory=dict)

    def add(self, places: list[Place], criterion: np.ndarray, values: dict[str, np.ndarray]) -> None:
        """Take in some cells.

        Args:
            places: which cells they are.
            criterion: how good each is inside of each training set, (cells, *sets).
            values: what to keep of the chosen one, each (cells, *sets, …).
        """
        rated = np.where(np.isfinite(criterion), criterion, -np.inf)
        if self.best is None:
            self.best = np.full(rated.shape[1:], -np.inf)
            self.values = {name: np.full(each.shape[1:], np.nan) for name, each in values.items()}
        winner = rated.argmax(0)
        for index in np.ndindex(*self.best.shape):
            cell = int(winner[index])
            if rated[(cell, *index)] > self.best[index]:
                self.best[index] = rated[(cell, *index)]
                self.places[index] = places[cell]
                for name, each in values.items():
                    self.values[name][index] = each[(cell, *index)]

    def mean(self, name: str) -> float:
        """Mean of a value over the training sets; NaN where no cell was chosen."""
        known = self.values.get(name, np.array([]))
        known = known[np.isfinite(known)]
        return float(known.mean()) if known.size else float("nan")

    @property
    def commonest(self) -> Place:
        """The cell that most training sets choose; empty where none did."""
        counts = Counter(tuple(place.items()) for place in self.places.values())
        return dict(counts.most_common(1)[0][0]) if counts else {}

    @property
    def agreement(self) -> float:
        """Share of the training sets that choose the commonest cell."""
        common = self.commonest
        return float(np.mean([place == common for place in self.places.values()])) if self.places else float("nan")


@dataclass
class Largest:
    """Track the largest statistic over all cells for each permutation, the real labels first."""

    maximum: np.ndarray | None = None

    def add(self, statistics: np.ndarray) -> None:
        """Take in some cells, (cells, permutations)."""
        largest = np.nan_to_num(statistics, nan=-np.inf).max(0)
        self.maximum = largest if self.maximum is None else np.maximum(self.maximum, largest)

    def p(self, statistic: float | None = None) -> float:
        """Share of the permutations, the real labels among them, whose largest cell reaches a statistic.

        By default that of the largest cell; another one gives the p value of its cell, corrected over all cells.
        """
        if self.maximum is None:
            return float("nan")
        reached = self.maximum[0] if statistic is None else statistic
        # Equal sums may differ in their last digit.
        return float((self.maximum >= reached - 1e-6).mean())
