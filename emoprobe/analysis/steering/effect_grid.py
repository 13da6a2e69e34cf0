"""The steered trajectories as arrays, and which cells have coherent text.

A row is a cell of the grid, a column a question, with the unsteered outcomes subtracted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from emoprobe.analysis.estimates import Floats, Labels
from emoprobe.analysis.questions import Questions

PRIMARY_OUTCOME = "log_p_gold"
STEERING_OUTCOMES = (PRIMARY_OUTCOME, "correct", "completion_tokens", "repetition", "perplexity", "kl")
# Families: what nothing was done to, what directions are compared with, and all directions that are no tested ones.
UNSTEERED, RANDOM, SHUFFLED = "none", "random", "shuffled"
CONTROLS = (RANDOM, SHUFFLED)
SHARES = ("correct",)  # outcomes in [0, 1]
BAND = (0.025, 0.975)  # quantiles of the random directions that are shown beside an effect
KEYS = ["direction", "operation", "phase", "layers", "dose", "variant"]


class SteeringCell(NamedTuple):
    """An edit without its direction, and the variant whose prompt it applies to."""

    operation: str
    phase: str
    layers: str
    dose: float
    variant: str

    @property
    def line(self) -> tuple[str, str, str, str]:
        """The places that differ from it in their dose alone have the same."""
        return self.operation, self.phase, self.layers, self.variant


@dataclass(frozen=True)
class SteeredDirection:
    """A direction that was steered along, or ablated."""

    name: str
    family: str
    tone: str | None


class EffectGrid:
    """A table `steering`, seen by cell and question; draws of a question are averaged.

    `places` has the place of each row, `owner` the number of its direction in `directions`.
    """

    def __init__(self, table: pd.DataFrame) -> None:
        steered = table["family"].ne(UNSTEERED) & table["dose"].ne(0)
        bare = table["family"].eq(UNSTEERED)
        used = table[steered | bare]
        code = np.empty(len(used), dtype=np.int64)
        here = steered[steered | bare].to_numpy()
        code[here] = used[here].groupby(KEYS, sort=False, dropna=False).ngroup()
        cells = int(code[here].max()) + 1 if here.any() else 0
        variants, names = pd.factorize(used["variant"][~here])
        code[~here] = cells + variants
        # By number, so that the questions keep their order whatever the cells are called.
        self._questions = Questions(used.assign(variant=code))
        order = np.argsort([int(name) for name in self._questions.names])
        self._rows = order.astype(np.int64)
        first = used[here].drop_duplicates(KEYS)
        tones = first["tone"].astype(object).where(first["tone"].notna(), None)
        known = [
            SteeredDirection(str(name), str(family), tone)
            for name, family, tone in zip(first["direction"], first["family"], tones, strict=True)
        ]
        self.directions = list(dict.fromkeys(known))
        numbers = {direction: number for number, direction in enumerate(self.directions)}
        self.owner = np.array([numbers[direction] for direction in known], dtype=np.int64)
        self.places = [
            SteeringCell(str(operation), str(phase), str(layers), float(dose), str(variant))
            for operation, phase, layers, dose, variant in first[KEYS[1:]].itertuples(index=False, name=None)
        ]
        bases = {str(name): cells + number for number, name in enumerate(names)}
        self._base = np.array([bases.get(place.variant, -1) for place in self.places], dtype=np.int64)
        self._bases = bases
        self._changes: dict[str, Floats] = {}

    @property
    def ids(self) -> list[str]:
        """The questions, in the order of the columns."""
        return self._questions.ids

    @cached_property
    def groups(self) -> Labels | None:
        """The group of each question; None where none is shared, or there are too few of them."""
        return self._questions.groups

    @cached_property
    def held(self) -> list[dict[SteeringCell, int]]:
        """Of each direction: place → row."""
        rows: list[dict[SteeringCell, int]] = [{} for _ in self.directions]
        for row, (owner, place) in enumerate(zip(self.owner.tolist(), self.places, strict=True)):
            rows[owner][place] = row
        return rows

    def values(self, outcome: str) -> Floats:
        """Shape (cells, questions): an outcome under each edit; perplexity as its logarithm."""
        return self._all(outcome)[: len(self.places)]

    def unsteered(self, variant: str, outcome: str) -> Floats | None:
        """Shape (questions,): the outcome of a variant without an edit; None where it was not run."""
        row = self._bases.get(variant)
        return None if row is None else self._all(outcome)[row]

    def changes(self, outcome: str) -> Floats:
        """Shape (cells, questions): steered minus unsteered, NaN where either is missing; of kl the value itself."""
        if outcome not in self._changes:
            every = self._all(outcome)
            steered = every[: len(self.places)]
            if outcome == "kl":
                self._changes[outcome] = steered
            else:
                base = np.where(self._base[:, None] >= 0, every[self._base], np.nan) if len(steered) else steered
                self._changes[outcome] = steered - base
        return self._changes[outcome]

    def rows_of(self, families: Iterable[str]) -> list[int]:
        """The numbers of the directions of some families."""
        chosen = set(families)
        return [number for number, direction in enumerate(self.directions) if direction.family in chosen]

    def _all(self, outcome: str) -> Floats:
        values = self._questions.values(outcome)[self._rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(values) if outcome == "perplexity" else values


Flags = npt.NDArray[np.bool_]

# An empty completion has no perplexity: a dose that silences the model more often than this is not coherent.
LEAST_WITH_TEXT = 0.9


@dataclass(frozen=True)
class Limits:
    """Limits on the distance of the text from the unsteered one.

    `max_perplexity` bounds the geometric mean over questions of the ratio of perplexities, `max_repetition` the
    mean rise of the share of repeated n-grams.
    """

    max_perplexity: float
    max_repetition: float


def coherent(grid: EffectGrid, limits: Limits) -> Flags:
    """Shape (cells,): whether the text is within the limits at this dose and at all smaller ones of its sign."""
    asked = ~np.isnan(grid.changes("completion_tokens"))
    flags = within(grid.changes("perplexity"), grid.changes("repetition"), asked, limits)
    unbroken_flags = np.zeros_like(flags)
    for number in range(len(grid.directions)):
        rows = np.flatnonzero(grid.owner == number)
        unbroken_flags[rows] = unbroken([grid.places[row] for row in rows], flags[rows])
    return unbroken_flags


def within(log_ratio: Floats, repetition: Floats, asked: Flags, limits: Limits) -> Flags:
    """Return a mask of the texts within the limits, from changes to the unsteered texts.

    Args:
        log_ratio: shape (…, questions): change of the logarithm of perplexity, NaN where a text is empty.
        repetition: the same shape: change of the share of repeated n-grams, NaN where a text is too short to have any.
        asked: the same shape: the questions to judge by.
        limits: how far it may be.
    """
    known = asked & ~np.isnan(log_ratio)
    repeated = asked & ~np.isnan(repetition)
    count, counted = known.sum(axis=-1), np.maximum(repeated.sum(axis=-1), 1)
    ratio = np.where(known, log_ratio, 0.0).sum(axis=-1) / np.maximum(count, 1)
    rise = np.where(repeated, repetition, 0.0).sum(axis=-1) / counted
    enough = (count > 0) & (count >= LEAST_WITH_TEXT * asked.sum(axis=-1))
    is_within: Flags = enough & (ratio <= np.log(limits.max_perplexity)) & (rise <= limits.max_repetition)
    return is_within


def unbroken(places: Sequence[SteeringCell], flags: Flags) -> Flags:
    """Flags of some places of one direction, kept where those of all smaller doses of the same sign hold too.

    A text that falls apart may look well again at a larger dose: one word over and over is likely.

    Args:
        places: the places.
        flags: shape (…, places).
    """
    kept = flags.copy()
    for place, one in enumerate(places):
        smaller = [
            number
            for number, other in enumerate(places)
            if other.line == one.line and other.dose * one.dose > 0 and abs(other.dose) < abs(one.dose)
        ]
        kept[..., place] &= flags[..., smaller].all(axis=-1)
    return kept
