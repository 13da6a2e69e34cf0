"""How far a direction moves the answers, ranked among control directions that ran the same grid.

If a direction does what others do, it and they can change places: whatever is computed from all of them alike, its rank
among n of them is uniform, so p = (1 + those at least as far) / (1 + n) is exact (Phipson & Smyth 2010). That needs the
same cells and the same questions for all, which are chosen here by what there is, never by what it shows.

There are two ranks. Random directions point anywhere. A direction that was fitted to activations lies where these vary,
and a push there may do more whatever the labels were: shuffled-label directions lie there as well. A tone's direction
has to stand out among both, so its p is the larger of the two (an intersection-union test, Berger 1982).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from emoprobe.analysis.estimates import MIN_QUESTIONS, Floats
from emoprobe.analysis.steering.effect_grid import (
    PRIMARY_OUTCOME,
    RANDOM,
    SHUFFLED,
    EffectGrid,
    Flags,
    Limits,
    SteeringCell,
    unbroken,
    within,
)
from emoprobe.analysis.steering.preregistration import MIN_CONTROLS

# The median of |x| times this is the standard deviation of a normal distribution.
TO_DEVIATION = 1.4826


@dataclass(frozen=True)
class DirectionRanking:
    """A direction beside its controls, on the cells and questions that all of them have.

    Attributes:
        places: the cells, (cells).
        shared: which questions are compared, (cells, questions).
        changes: of the primary outcome, (1 + controls + shuffled, cells, questions), the direction's own first; NaN
            where a question is not compared.
        effects: their means, (1 + controls + shuffled, cells).
        flags: whether the text is coherent on these questions, of the same shape.
        controls: how many random directions there are; the rows after them are shuffled-label ones, of any tone.
    """

    places: list[SteeringCell]
    shared: Flags
    changes: Floats
    effects: Floats
    flags: Flags
    controls: int

    @property
    def scale(self) -> Floats:
        """Shape (cells): the spread about 0 of all effects, the direction's among them, where they are coherent.

        By the median, so that a direction far off does not make itself small; by the root mean square where more than
        half have no effect at all. All take part alike, so that ranks stay exact.
        """
        sizes = np.where(self.flags, np.abs(self.effects), np.nan)
        spread = np.full(len(self.places), np.nan)
        for cell, column in enumerate(sizes.T):
            known = column[~np.isnan(column)]
            if len(known):
                spread[cell] = TO_DEVIATION * np.median(known) or np.sqrt(np.mean(known**2))
        return spread

    @property
    def standardised(self) -> Floats:
        """Shape as `effects`: |effect| over the scale, 0 where the text is not coherent."""
        scale = self.scale
        usable = self.flags & (scale > 0)
        ratios: Floats = np.where(usable, np.abs(self.effects) / np.where(scale > 0, scale, 1.0), 0.0)
        return ratios

    @property
    def largest(self) -> Floats:
        """Shape (1 + controls + shuffled): each direction's largest standardised |effect| in its coherent cells."""
        maxima: Floats = self.standardised.max(axis=1, initial=0.0)
        return maxima

    @property
    def shuffled(self) -> int:
        """Number of shuffled-label directions."""
        return len(self.effects) - 1 - self.controls

    def p_random(self, size: float) -> float:
        """The p value of a standardised |effect| against the random directions' largest."""
        return float(1 + np.sum(self.largest[1 : 1 + self.controls] >= size)) / (1 + self.controls)

    def p_shuffled(self, size: float) -> float:
        """The same against the shuffled-label directions' largest; NaN without any."""
        others = self.largest[1 + self.controls :]
        return float(1 + np.sum(others >= size)) / (1 + len(others)) if len(others) else math.nan

    def p(self, size: float) -> float:
        """The larger of the two, where there are two."""
        return float(np.nanmax([self.p_random(size), self.p_shuffled(size)]))

    def critical(self, level: float) -> float:
        """The standardised |effect| that has to be exceeded for a p of at most `level`.

        Infinite where there are too few controls.
        """
        largest = self.largest[1:]
        return max(
            _critical(others, level) for others in (largest[: self.controls], largest[self.controls :]) if len(others)
        )


def _critical(others: Floats, level: float) -> float:
    """Return the value to exceed for a rank among these of at most `level`."""
    above = int(np.floor(level * (1 + len(others)) + 1e-9)) - 1
    if above < 0:
        return math.inf
    return float(np.sort(others)[::-1][above]) if above < len(others) else 0.0


def rank(grid: EffectGrid, number: int, limits: Limits) -> DirectionRanking:
    """A direction beside all random directions that ran its cells and, if it is a tone's, shuffled-label ones that did.

    Only added doses are compared: there the random ones are of the same length. What an ablation takes away is as large
    as the stream's component, which a random direction has next to none of.

    Args:
        grid: the trajectories.
        number: of the direction, in `grid.directions`.
        limits: of coherent text.
    """
    added = [place for place in grid.held[number] if place.operation == "add"]
    held = {other: grid.held[other].keys() for other in grid.rows_of([RANDOM, SHUFFLED])}
    fitted = grid.directions[number].tone is not None
    random = [other for other in held if grid.directions[other].family == RANDOM]
    places, controls = _common(added, {other: held[other] for other in random})
    shuffled = [
        other for other in held if fitted and grid.directions[other].family == SHUFFLED and held[other] >= set(places)
    ]
    members = [number, *controls, *shuffled]
    rows = np.array([[grid.held[member][place] for place in places] for member in members], dtype=np.int64)
    changes = grid.changes(PRIMARY_OUTCOME)[rows]
    shared: Flags = np.logical_not(np.isnan(changes)).all(axis=0)
    enough = np.flatnonzero(shared.sum(axis=-1) >= MIN_QUESTIONS)
    places, shared = [places[cell] for cell in enough], shared[enough]
    rows, changes = rows[:, enough], changes[:, enough]
    asked = np.broadcast_to(shared, changes.shape)
    flags = within(grid.changes("perplexity")[rows], grid.changes("repetition")[rows], asked, limits)
    effects = np.where(shared, changes, 0.0).sum(axis=-1) / np.maximum(shared.sum(axis=-1), 1)
    changes = np.where(shared, changes, np.nan)
    return DirectionRanking(places, shared, changes, effects, unbroken(places, flags), len(controls))


def _common(
    added: list[SteeringCell], held: Mapping[int, AbstractSet[SteeringCell]]
) -> tuple[list[SteeringCell], list[int]]:
    """The cells to compare in, and the controls that have all of them.

    Cells are those that enough controls have, or the most where none has enough.
    """
    counts = Counter(place for places in held.values() for place in places)
    most = max((counts[place] for place in added), default=0)
    chosen = [place for place in added if most and counts[place] >= min(most, MIN_CONTROLS)]
    return chosen, [other for other, places in held.items() if places >= set(chosen)] if chosen else []
