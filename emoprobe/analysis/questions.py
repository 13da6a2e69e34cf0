"""The trajectories by question: one value for each variant and question, the mean of its draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from emoprobe.analysis.estimates import Floats, Labels

# With fewer groups, such as levels of difficulty, conclusions are about questions of these groups.
MIN_GROUPS = 8


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

    def __post_init__(self) -> None:
        variant, names = pd.factorize(self.table["variant"])
        question, ids = pd.factorize(self.table["sample_id"], sort=True)
        for name, value in (
            ("names", list(map(str, names))),
            ("ids", list(map(str, ids))),
            ("_variant", variant.astype(np.int64)),
            ("_question", question.astype(np.int64)),
        ):
            object.__setattr__(self, name, value)

    def values(self, measure: str, failed: float | None = None) -> Floats:
        """Shape (variants, questions): a column's mean over the draws that have a value, NaN where none has.

        Args:
            measure: a column of the trajectories; `untruncated` is `correct` where the completion was not cut off.
            failed: the value of trajectories that no server answered; None: they have none.
        """
        if (measure, failed) not in self._known:
            self._known[measure, failed] = self._values(measure, failed)
        return self._known[measure, failed]

    def _values(self, measure: str, failed: float | None) -> Floats:
        column = _floats(self.table["correct" if measure == "untruncated" else measure])
        if measure == "untruncated":
            column = np.where(_floats(self.table["truncated"]) == 1, np.nan, column)
        if failed is not None:
            column = np.where(self.failures, failed, column)
        known = ~np.isnan(column)
        shape = (len(self.names), len(self.ids))
        place = self._variant[known] * shape[1] + self._question[known]
        total = np.bincount(place, column[known], minlength=shape[0] * shape[1])
        count = np.bincount(place, minlength=shape[0] * shape[1])
        with np.errstate(invalid="ignore"):
            return np.where(count > 0, total / count, np.nan).reshape(shape)

    def by_draw(self, measure: str) -> Floats:
        """Shape (variants, questions, draws): a column, NaN where there is no value."""
        draw, draws = pd.factorize(self.table["draw"], sort=True)
        values = np.full((len(self.names), len(self.ids), len(draws)), np.nan)
        values[self._variant, self._question, draw] = _floats(self.table[measure])
        return values

    @cached_property
    def failures(self) -> npt.NDArray[np.bool_]:
        """Which rows of the table no server answered."""
        failed: npt.NDArray[np.bool_] = self.table["failure"].notna().to_numpy(dtype=bool)
        return failed

    def texts(self, name: str) -> Labels | None:
        """Shape (questions,): which text of the variant each question has; None unless it has several."""
        if self.count(name) < 2:
            return None
        rows = self._variant == self.row(name)
        labels = np.full(len(self.ids), -1, dtype=np.int64)
        labels[self._question[rows]] = _floats(self.table["paraphrase"])[rows].astype(np.int64)
        return labels

    @cached_property
    def groups(self) -> Labels | None:
        """Shape (questions,): the group of each question; None where none is shared, or there are too few of them."""
        if "group" not in self.table:
            return None
        group_of = np.full(len(self.ids), None, dtype=object)
        group_of[self._question] = self.table["group"].astype(object).where(self.table["group"].notna(), None)
        names = [
            ("question", one) if group is None else ("group", group)
            for one, group in zip(self.ids, group_of, strict=True)
        ]
        places = {name: place for place, name in enumerate(dict.fromkeys(names))}
        if not MIN_GROUPS <= len(places) < len(names):
            return None
        return np.array([places[name] for name in names], dtype=np.int64)

    def count(self, name: str) -> int:
        """How many texts of the variant have a question; 0 where it has no text, or not every one is known."""
        text = _floats(self.table["paraphrase"])[self._variant == self.row(name)]
        return 0 if np.isnan(text).any() else len(np.unique(text))

    def row(self, name: str) -> int:
        """The place of a variant among `names`."""
        return self.names.index(name)


def _floats(column: pd.Series) -> Floats:
    return column.to_numpy(dtype=float, na_value=np.nan)
