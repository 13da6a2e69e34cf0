"""The trajectories by question: one value for each variant and question, the mean of its draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from emoprobe.analysis.estimates import Floats, Labels
from emoprobe.analysis.statistics import LEVEL
from emoprobe.config.section import CONTROL

# With fewer groups, such as levels of difficulty, conclusions are about questions of these groups.
MIN_GROUPS = 8
# With fewer texts a sentence is about the texts used. From 24 on at most 5 % of claims about a tone are false where one
# text in 32 moves the accuracy by 40 points, or one in 16 by 85, in families of up to 8 tones (the worlds are in
# `tests/calibration/mixtures.py`); with 16 texts 7 % are. A kind that one text in 8 is of escapes 24 of them in 4 % of
# runs.
TONE_TEXTS = 24


def unseen_share(texts: int) -> float:
    """The largest share of texts that break the answer, though none of these does, at 95 % (Clopper & Pearson)."""
    return float(1 - LEVEL ** (1 / texts))


def units_of(sides: Sequence[Labels | None]) -> list[Labels] | None:
    """The divisions of the questions into texts whose parts are the units of a claim about tones; None: no such claim.

    Where each question has a text of its own, question and text are one unit and there is nothing to divide.

    Args:
        sides: for each variant that has texts, shape (n,), which one each question has, -1 where it has no
            trajectory; None where that is unknown, or there is one text.
    """
    divisions: list[Labels] = []
    for labels in sides:
        if labels is None:
            return None
        known = labels[labels >= 0]
        texts = len(np.unique(known))
        if texts < TONE_TEXTS:
            return None
        if texts < len(known) and not any(_in_step(labels, other) for other in divisions):
            divisions.append(labels)
    # Of three and more that are crossed no variance is known that would hold.
    return divisions if len(divisions) < 3 else None


def two_sides(divisions: Sequence[Labels] | None) -> tuple[Labels | None, Labels | None]:
    """The divisions as `difference` takes them: None where there are fewer than two."""
    first, second, *_ = [*(divisions or []), None, None]
    return first, second


def _in_step(labels: Labels, other: Labels) -> bool:
    """Return whether the same questions share a text, where both are known."""
    both = (labels >= 0) & (other >= 0)
    return np.array_equal(labels[both], other[both])


@dataclass(frozen=True)
class Questions:
    """A table of trajectories, seen by question.

    `names` are the variants in the order of the table, `ids` the questions in order.
    """

    table: pd.DataFrame
    names: list[str] = field(init=False)
    ids: list[str] = field(init=False)
    _variant: Labels = field(init=False)
    _question: Labels = field(init=False)
    _known: dict[tuple[str, float | None], Floats] = field(init=False, default_factory=dict, repr=False)
    _missing: dict[str, Floats] = field(init=False, default_factory=dict, repr=False)
    _texts: dict[str, Labels | None] = field(init=False, default_factory=dict, repr=False)
    draws: int = field(init=False)

    def __post_init__(self) -> None:
        variant, names = pd.factorize(self.table["variant"])
        question, ids = pd.factorize(self.table["sample_id"], sort=True)
        for name, value in (
            ("names", list(map(str, names))),
            ("ids", list(map(str, ids))),
            ("_variant", variant.astype(np.int64)),
            ("_question", question.astype(np.int64)),
            ("draws", int(self.table["draw"].max()) if len(self.table) else 0),
        ):
            object.__setattr__(self, name, value)

    def values(self, measure: str, missing: float | None = None) -> Floats:
        """Shape (variants, questions): a column's mean over the draws that have a value, NaN where none has.

        Args:
            measure: a column of the trajectories; `untruncated` is `correct` where the completion was not cut off.
            missing: the value of the trajectories that are `missing`; None: they have none.
        """
        if (measure, missing) not in self._known:
            self._known[measure, missing] = self._values(measure, missing)
        return self._known[measure, missing]

    def _values(self, measure: str, missing: float | None) -> Floats:
        column = _floats(self.table["correct" if measure == "untruncated" else measure])
        if measure == "untruncated":
            column = np.where(_floats(self.table["truncated"]) == 1, np.nan, column)
        total, count = self._by_pair(column)
        if missing is not None:
            left = self.missing(measure)
            total, count = total + missing * left, count + left
        with np.errstate(invalid="ignore"):
            return np.where(count > 0, total / count, np.nan)

    def _by_pair(self, column: Floats) -> tuple[Floats, Floats]:
        """Sum and number of the known values of a column, each of shape (variants, questions)."""
        known = ~np.isnan(column)
        shape = (len(self.names), len(self.ids))
        place = self._variant[known] * shape[1] + self._question[known]
        total = np.bincount(place, column[known], minlength=shape[0] * shape[1])
        count = np.bincount(place, minlength=shape[0] * shape[1])
        return total.reshape(shape).astype(float), count.reshape(shape).astype(float)

    def missing(self, measure: str) -> Floats:
        """Shape (variants, questions): how many draws have no value, absent or unanswered, though others have one.

        A question without a value in any variant, such as one without a gold answer, misses none.
        """
        if measure not in self._missing:
            self._missing[measure] = self._count_missing(measure)
        return self._missing[measure]

    def _count_missing(self, measure: str) -> Floats:
        count = self._by_pair(_floats(self.table[measure]))[1]
        failed = self._by_pair(np.where(self.failures, 1.0, np.nan))[1]
        asked = ((count + failed) > 0).any(axis=0)
        return np.where(asked, self.draws - count, 0.0)

    def by_draw(self, measure: str) -> Floats:
        """Shape (variants, questions, draws): a column, NaN where there is no value."""
        draw, draws = pd.factorize(self.table["draw"], sort=True)
        values = np.full((len(self.names), len(self.ids), len(draws)), np.nan)
        values[self._variant, self._question, draw] = _floats(self.table[measure])
        return values

    @cached_property
    def failures(self) -> npt.NDArray[np.bool_]:
        """Mask of the rows of the table that no server answered."""
        failed: npt.NDArray[np.bool_] = self.table["failure"].notna().to_numpy(dtype=bool)
        return failed

    def texts(self, name: str) -> Labels | None:
        """Shape (questions,): which text of the variant each question has; None unless it has several."""
        if name not in self._texts:
            labels = None
            if self.count(name) > 1:
                rows = self._variant == self.row(name)
                labels = np.full(len(self.ids), -1, dtype=np.int64)
                labels[self._question[rows]] = self._paraphrase[rows].astype(np.int64)
            self._texts[name] = labels
        return self._texts[name]

    @cached_property
    def _paraphrase(self) -> Floats:
        return _floats(self.table["paraphrase"])

    @cached_property
    def groups(self) -> Labels | None:
        """Shape (questions,): the group of each question; None where none is shared, or there are too few of them.

        The same question under several ids is one group, however few there are: its copies say nothing of other ones.
        """
        asked = [("question", text or one) for one, text in zip(self.ids, self._by_id("question"), strict=True)]
        names = [
            question if group is None else ("group", group)
            for question, group in zip(asked, self._by_id("group"), strict=True)
        ]
        if not MIN_GROUPS <= len(set(names)) < len(names):
            names = asked
        places = {name: place for place, name in enumerate(dict.fromkeys(names))}
        if len(places) == len(names):
            return None
        return np.array([places[name] for name in names], dtype=np.int64)

    def _by_id(self, column: str) -> list[str | None]:
        """A column of the samples in the order of `ids`; None where there is no value, or no such column."""
        values = np.full(len(self.ids), None, dtype=object)
        if column in self.table:
            values[self._question] = self.table[column].astype(object).where(self.table[column].notna(), None)
        return list(values)

    def units(self, *names: str) -> list[Labels] | None:
        """`units_of` the texts that these variants have; a variant that is known to add none has no say."""
        return units_of([self.texts(name) for name in names if name != CONTROL])

    def count(self, name: str) -> int:
        """Return how many texts of the variant have a question; 0 where it has no text, or not every one is known."""
        text = self._paraphrase[self._variant == self.row(name)]
        return 0 if np.isnan(text).any() else len(np.unique(text))

    def row(self, name: str) -> int:
        """The place of a variant among `names`."""
        return self.names.index(name)


def _floats(column: pd.Series) -> Floats:
    return column.to_numpy(dtype=float, na_value=np.nan)
