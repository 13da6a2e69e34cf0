"""The two halves: no question, group or text of any variant in both."""

from __future__ import annotations

import pandas as pd
import pytest

from emoprobe.analysis.features.tokens import halves
from tests.emoprobe.analysis.features.planted import table


def shared(rows: pd.DataFrame, *columns: str) -> set[tuple[object, ...]]:
    """Values that both halves have."""
    known = rows.dropna(subset=["half", *columns])
    fit, test = (
        {*known[known["half"] == half][list(columns)].itertuples(index=False, name=None)} for half in ("fit", "test")
    )
    return fit & test


@pytest.mark.parametrize(
    "texts", [{"filler": 8, "joy": 8}, {"filler": 8, "joy": 6}, {"filler": 5, "joy": 8}, {"filler": 1, "joy": 8}]
)
@pytest.mark.parametrize("groups", [0, 12])
def test_they_have_nothing_in_common(texts: dict[str, int], groups: int) -> None:
    rows = table(96, {"control": 0, **texts}, groups)
    assert not shared(rows, "sample_id")
    assert not shared(rows[rows["variant"].map(lambda name: texts.get(name, 0) > 1)], "variant", "paraphrase")
    if groups:
        assert not shared(rows, "group")
    # A text of its own is one that all questions have.
    counts = rows["half"].value_counts()
    assert counts.min() >= 30


def test_nothing_is_lost_where_the_texts_are_in_step() -> None:
    for count in (2, 3, 5, 8):
        rows = table(60, {"control": 0, "filler": count, "joy": count})
        assert rows["half"].notna().all()
    assert table(60, {"control": 0, "filler": 8, "joy": 4})["half"].notna().all()


def test_few_groups_are_no_groups() -> None:
    rows = table(40, {"control": 0, "joy": 1}, groups=2)
    assert rows["half"].value_counts().to_dict() == {"fit": 40, "test": 40}


def test_draws_of_a_question_stay_together() -> None:
    rows = table(20, {"control": 0, "joy": 4})
    both = pd.concat([rows, rows.assign(draw=2)], ignore_index=True)
    both["half"] = halves(both, 0)
    assert not shared(both, "sample_id")
    assert both["half"].value_counts().to_dict() == {"fit": 40, "test": 40}
