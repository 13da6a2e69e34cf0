"""The registry of graders: a table of cases for each, and what holds of all."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoprobe.analysis.contrasts import OUTCOMES, PRIMARY_MEASURE
from emoprobe.config.errors import ConfigError
from emoprobe.config.files import parse_config
from emoprobe.config.science.graders import GraderName, LogprobGrader
from emoprobe.graders.registry import GRADERS, Answer, Columns, graded, grader
from emoprobe.results.catalogue import TABLES

CASES: list[tuple[str, Answer, Columns]] = [
    ("number", Answer("Answer: 12", "12"), {"correct": True, "lenient": True, "compliant": True}),
    ("number", Answer("Answer: 12", "13"), {"correct": False, "lenient": False, "extracted": "12"}),
    ("number", Answer("Answer: 12", "12", finished=False), {"correct": False, "lenient": True}),
    ("number", Answer("(B)", "B", choices=["one", "two"]), {"correct": True, "extracted": "B"}),
    ("number", Answer("Answer: 12", None, recorded=True), {"correct": True, "lenient": True, "extracted": "12"}),
    ("number", Answer("Answer: 12", None), {"correct": None, "lenient": None, "extraction": "marker"}),
    ("logprob", Answer("12", "12", log_p_gold=math.log(0.25)), {"p_gold": 0.25, "log_p_gold": math.log(0.25)}),
    ("logprob", Answer("12", "12", log_p_gold=0.0), {"p_gold": 1.0, "log_p_gold": 0.0}),
    ("logprob", Answer("12", "12", log_p_gold=-2000.0), {"p_gold": 0.0, "log_p_gold": -2000.0}),
    ("logprob", Answer("12", "12"), {"p_gold": None, "log_p_gold": None}),
]


@pytest.mark.parametrize(("name", "answer", "expected"), CASES)
def test_a_grader_gives_its_columns(name: str, answer: Answer, expected: Columns) -> None:
    found = GRADERS[name].grade(answer)
    assert {column: found[column] for column in expected} == pytest.approx(expected)


@given(st.text(max_size=60), st.none() | st.floats(-1e4, 0.0), st.booleans())
def test_every_column_is_in_the_table_and_its_value_of_its_type(text: str, log_p: float | None, finished: bool) -> None:
    columns = graded(Answer(text, "7", finished=finished, log_p_gold=log_p))
    assert columns.keys() <= TABLES["trajectories"].columns.keys()
    for each in GRADERS.values():
        value = columns[each.column]
        assert value is None or (value in (True, False) if each.value == "binary" else 0 <= value <= 1)
    assert (columns["p_gold"] is None) is (log_p is None)


def test_every_grader_is_known_to_the_config_and_has_families_of_its_own() -> None:
    assert set(GRADERS) == set(get_args(GraderName))
    assert {each.column for each in GRADERS.values()} == {PRIMARY_MEASURE, *OUTCOMES}
    assert len(set(OUTCOMES.values())) == len(OUTCOMES)


def test_a_new_grader_is_one_function() -> None:
    @grader(value="number", column="words", title="number of words")
    def words(answer: Answer) -> Columns:
        return {"words": len(answer.completion.split())}

    assert (words.name, words.value) == ("words", "number")
    assert words.grade(Answer("two words", None)) == {"words": 2}


def test_a_config_names_graders_with_or_without_settings() -> None:
    plain, short = parse_config({}), parse_config({"graders": ["number", "logprob"]})
    assert plain.grader_names == ["number"]
    assert plain.logprob is None
    assert "graders" not in plain.described()  # so that results of earlier versions stay up to date
    assert short.logprob == LogprobGrader()
    long = parse_config({"graders": [{"name": "logprob", "lead": "", "gold": ["{answer}"], "margin": 0.01}, "number"]})
    assert long.grader_names == ["logprob", "number"]
    assert parse_config(long.resolved()) == long


@pytest.mark.parametrize(
    ("graders", "said"),
    [
        (["logprob"], "must contain number"),
        (["number", "logprob", {"name": "logprob"}], "names a grader twice"),
        (["number", {"name": "logprob", "gold": ["12"]}], "must contain the placeholder {answer}"),
        (["number", {"name": "logprob", "gold": ["{answer}", "{answer}"]}], "names a form twice"),
        (["number", "judge"], "graders.1"),
        (["number", {"name": "logprob", "golds": ["{answer}"]}], r"graders.1.golds.* did you mean 'gold'"),
    ],
)
def test_a_wrong_list_of_graders_is_refused(graders: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config({"graders": graders})
