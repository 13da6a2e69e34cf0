"""The trajectories by question: one value for each variant and question, the mean of its draws.

Where a variant is asked several times, each time with another text, one of its values is that of an *observation*: a
question and an ask. Observations are numbered question by question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from emoprobe.analysis.estimates import Floats, Labels
from emoprobe.analysis.outcomes import column_and_category, outcome_of
from emoprobe.analysis.statistics import LEVEL
from emoprobe.config.science.analysis import TONE_TEXTS
from emoprobe.config.section import CONTROL
from emoprobe.graders.registry import JUDGED, ORDERS

# With fewer groups, such as levels of difficulty, what they share cannot be estimated.
MIN_GROUPS = 8
# With fewer groups a conclusion is about questions of these groups. A tone may break the answer to one kind of template
# in 8, of which 8 groups lack any in 34 % of runs, and 24 in 4 % (`GROUPED` in `tests/calibration/mixtures.py`).
OTHER_GROUPS = 24


def unseen_share(texts: int) -> float:
    """The largest share of texts that break the answer, though none of these does, at 95 % (Clopper & Pearson)."""
    return float(1 - LEVEL ** (1 / texts))


@dataclass(frozen=True)
class Units:
    """The units of a claim about tones.

    Attributes:
        divisions: of the observations into texts, or questions, whose parts are the units; where there is none,
            questions are. Each has shape (questions × asks,).
        asks: observations of each question, 1 where those of a question count as one.
    """

    divisions: tuple[Labels, ...] = ()
    asks: int = 1

    @property
    def sides(self) -> tuple[Labels | None, Labels | None]:
        """The divisions as `difference` takes them: None where there are fewer than two."""
        first, second, *_ = [*self.divisions, None, None]
        return first, second

    def repeated(self, labels: Labels | None) -> Labels | None:
        """Labels of the questions, shape (questions,), for each observation."""
        return None if labels is None else np.repeat(labels, self.asks)


def units_of(sides: Sequence[Labels | None], asked: Labels | None = None) -> Units | None:
    """The units of a claim about tones; None: no such claim.

    Where each question has a text of its own, question and text are one unit and there is nothing to divide. A variant
    that is asked several times, whose texts come up on several questions, divides the observations, and its
    counterpart's texts, or else the questions, are the other division.

    Args:
        sides: for each variant that has texts and is asked once, shape (n,), which one each question has, -1 where it
            has no trajectory; None where that is unknown, or there is one text.
        asked: the same of a variant that is asked k times, shape (n, k).
    """
    divisions = _divisions(sides)
    if asked is None:
        return None if divisions is None or len(divisions) > 2 else Units(tuple(divisions))
    known = asked[asked >= 0]
    texts = len(np.unique(known))
    if divisions is None or texts < TONE_TEXTS:
        return None
    if texts == len(known):
        return Units(tuple(divisions)) if len(divisions) < 3 else None
    n, asks = asked.shape
    others = divisions or [np.arange(n)]
    # Of three and more that are crossed no variance is known that would hold.
    return Units((np.repeat(others[0], asks), asked.ravel()), asks) if len(others) < 2 else None


def _divisions(sides: Sequence[Labels | None]) -> list[Labels] | None:
    """The divisions of the questions into texts; None where a side has too few."""
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
    return divisions


def _in_step(labels: Labels, other: Labels) -> bool:
    """Return whether the same questions share a text, where both are known."""
    both = (labels >= 0) & (other >= 0)
    return np.array_equal(labels[both], other[both])


@dataclass(frozen=True)
class Questions:
    """A table of trajectories, seen by question.

    `names` are the variants in the order of the table, `ids` the questions in order; `draws` are those of one ask,
    `asks` how many each variant has.
    """

    table: pd.DataFrame
    names: list[str] = field(init=False)
    ids: list[str] = field(init=False)
    _variant: Labels = field(init=False)
    _question: Labels = field(init=False)
    _ask: Labels = field(init=False)
    _known: dict[tuple[str, float | None, int], Floats] = field(init=False, default_factory=dict, repr=False)
    _missing: dict[tuple[str, int], Floats] = field(init=False, default_factory=dict, repr=False)
    _texts: dict[str, Labels | None] = field(init=False, default_factory=dict, repr=False)
    draws: int = field(init=False)
    asks: Labels = field(init=False)

    def __post_init__(self) -> None:
        variant, names = pd.factorize(self.table["variant"])
        question, ids = pd.factorize(self.table["sample_id"], sort=True)
        draw = self.table["draw"].to_numpy(dtype=np.int64)
        asks, last = np.ones(len(names), dtype=np.int64), np.zeros(len(names), dtype=np.int64)
        if "asks" in self.table:  # under steering every question is asked once
            np.maximum.at(asks, variant, self.table["asks"].fillna(1).to_numpy(dtype=np.int64))
        np.maximum.at(last, variant, draw)
        draws = int((-(-last // asks)).max(initial=0))
        for name, value in (
            ("names", list(map(str, names))),
            ("ids", list(map(str, ids))),
            ("_variant", variant.astype(np.int64)),
            ("_question", question.astype(np.int64)),
            ("_ask", np.minimum((draw - 1) // max(draws, 1), asks[variant] - 1)),
            ("draws", draws),
            ("asks", asks),
        ):
            object.__setattr__(self, name, value)

    def values(self, measure: str, missing: float | None = None, asks: int = 1) -> Floats:
        """Shape (variants, questions × asks): a column's mean over the draws that have a value, NaN where none has.

        Args:
            measure: a column of the trajectories, or `COLUMN=CATEGORY` for 1 where it has this category and 0 where it
                has another; `untruncated` is `correct` where the completion was not cut off.
            missing: the value of the trajectories that are `missing`; None: they have none.
            asks: observations of a question, as `Units` says; with 1 a mean is over all asks. A variant with fewer asks
                repeats its value.
        """
        if (measure, missing, asks) not in self._known:
            self._known[measure, missing, asks] = self._values(measure, missing, asks)
        return self._known[measure, missing, asks]

    def _values(self, measure: str, missing: float | None, asks: int) -> Floats:
        column = self._column("correct" if measure == "untruncated" else measure)
        if measure == "untruncated":
            column = np.where(_floats(self.table["truncated"]) == 1, np.nan, column)
        total, count = self._by_pair(column, asks)
        if missing is not None:
            left = self.missing(measure, asks)
            total, count = total + missing * left, count + left
        with np.errstate(invalid="ignore"):
            return np.where(count > 0, total / count, np.nan)

    def _column(self, measure: str) -> Floats:
        name, category = column_and_category(measure)
        column = self.table[name]
        if category is None:
            return _floats(column)
        known = column.notna().to_numpy(dtype=bool)
        return np.where(known, (column == category).to_numpy(dtype=float, na_value=np.nan), np.nan)

    def _by_pair(self, column: Floats, asks: int = 1) -> tuple[Floats, Floats]:
        """Sum and number of the known values of a column, each of shape (variants, questions × asks)."""
        known = ~np.isnan(column) & ((asks == 1) | (self._ask < asks))
        shape = (len(self.names), len(self.ids), asks)
        place = (self._variant[known] * shape[1] + self._question[known]) * asks
        place += self._ask[known] if asks > 1 else 0
        total, count = (
            np.bincount(place, weights, minlength=int(np.prod(shape))).reshape(shape).astype(float)
            for weights in (column[known], None)
        )
        for sums in (total, count) if asks > 1 else ():
            once = self.asks == 1
            sums[once] = sums[once][:, :, :1]
        return total.reshape(shape[0], -1), count.reshape(shape[0], -1)

    def missing(self, measure: str, asks: int = 1) -> Floats:
        """Shape (variants, questions × asks): how many draws have no value, absent or unanswered, and others have one.

        A question without a value in any variant, such as one without a gold answer, misses none, but for one of which
        pairs were judged. An answer that was wrong at first misses no survival.
        """
        if (measure, asks) not in self._missing:
            self._missing[measure, asks] = self._count_missing(measure, asks)
        return self._missing[measure, asks]

    def _count_missing(self, measure: str, asks: int) -> Floats:
        column = self._column(measure)
        outcome = outcome_of(measure)
        known = self._column(outcome.known or measure)
        failed = self._by_pair(np.where(self.failures, 1.0, np.nan))[1]
        asked = ((self._by_pair(column)[1] + failed) > 0).any(axis=0)
        if ORDERS + outcome.label in self.table:
            judged = np.where(self.table[JUDGED + outcome.label].notna(), 1.0, np.nan)
            asked |= (self._by_pair(judged)[1] > 0).any(axis=0)
        planned = np.full(len(self.names), self.draws) if asks > 1 else self.draws * self.asks
        return np.where(np.repeat(asked, asks), planned[:, None] - self._by_pair(known, asks)[1], 0.0)

    @property
    def planned(self) -> int:
        """The number of trajectories that there are if none is absent."""
        return int(self.draws * self.asks.sum()) * len(self.ids)

    def by_draw(self, measure: str) -> Floats:
        """Shape (variants, questions, most draws): a column, NaN where there is no value; draws ask by ask."""
        most = int(self.draws * self.asks.max(initial=1))
        values = np.full((len(self.names), len(self.ids), most), np.nan)
        values[self._variant, self._question, self.table["draw"].to_numpy(dtype=np.int64) - 1] = _floats(
            self.table[measure]
        )
        return values

    @cached_property
    def failures(self) -> npt.NDArray[np.bool_]:
        """Mask of the rows of the table that no server answered."""
        failed: npt.NDArray[np.bool_] = self.table["failure"].notna().to_numpy(dtype=bool)
        return failed

    def texts(self, name: str) -> Labels | None:
        """Shape (questions,): which text of the variant each question has first; None unless it has several."""
        asked = self.asked_texts(name)
        return None if asked is None else asked[:, 0]

    def asked_texts(self, name: str) -> Labels | None:
        """Shape (questions, asks): which text of the variant each ask has; None unless it has several."""
        if name not in self._texts:
            labels = None
            if self.count(name) > 1:
                row = self.row(name)
                rows = self._variant == row
                labels = np.full((len(self.ids), self.asks[row]), -1, dtype=np.int64)
                labels[self._question[rows], self._ask[rows]] = self._paraphrase[rows].astype(np.int64)
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
        names = self._group_names if len(set(self._group_names)) >= MIN_GROUPS else self._asked
        places = {name: place for place, name in enumerate(dict.fromkeys(names))}
        if len(places) == len(names):
            return None
        return np.array([places[name] for name in names], dtype=np.int64)

    @cached_property
    def other_groups(self) -> bool:
        """Whether questions share groups, of which others are claimed as well; copies of a question are no group."""
        return OTHER_GROUPS <= len(set(self._group_names)) < len(set(self._asked))

    @cached_property
    def _asked(self) -> list[tuple[str, str]]:
        return [("question", text or one) for one, text in zip(self.ids, self._by_id("question"), strict=True)]

    @cached_property
    def _group_names(self) -> list[tuple[str, str]]:
        return [
            question if group is None else ("group", group)
            for question, group in zip(self._asked, self._by_id("group"), strict=True)
        ]

    def _by_id(self, column: str) -> list[str | None]:
        """A column of the samples in the order of `ids`; None where there is no value.

        Tables of steered trajectories lack some columns.
        """
        values = np.full(len(self.ids), None, dtype=object)
        if column in self.table:
            values[self._question] = self.table[column].astype(object).where(self.table[column].notna(), None)
        return list(values)

    def units(self, *names: str, once: str | None = None) -> Units | None:
        """`units_of` the texts that these variants have; a variant that is known to add none has no say.

        Of several variants that are asked several times no variance is known: None.

        Args:
            names: of the variants.
            once: one of them of which only the first ask takes part, unless another is asked several times as well.
        """
        told = [name for name in names if name != CONTROL]
        several = [name for name in told if self.asks[self.row(name)] > 1]
        if not several or several == [once]:
            return units_of([self.texts(name) for name in told])
        asked = self.asked_texts(several[0])
        if len(several) > 1 or asked is None:
            return None
        return units_of([self.texts(name) for name in told if name not in several], asked)

    def count(self, name: str) -> int:
        """Return how many texts of the variant have a question; 0 where it has no text, or not every one is known."""
        text = self._paraphrase[self._variant == self.row(name)]
        return 0 if np.isnan(text).any() else len(np.unique(text))

    def row(self, name: str) -> int:
        """The place of a variant among `names`."""
        return self.names.index(name)


def _floats(column: pd.Series) -> Floats:
    return column.to_numpy(dtype=float, na_value=np.nan)


def asked_in(table: pd.DataFrame) -> pd.Series:
    """Return the name of each row's question, the same for copies under several ids, whose answers go together."""
    ids = table["sample_id"].astype("string").radd("id ")
    if "question" not in table:
        return ids
    asked = table["question"].astype("string")
    return asked.mask(asked.eq("").fillna(False)).radd("question ").fillna(ids)
