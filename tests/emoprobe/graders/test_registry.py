"""The registry of graders: a table of cases for each, and what holds of all."""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoprobe.config.errors import ConfigError
from emoprobe.config.files import parse_config
from emoprobe.config.science.graders import GraderName, LogprobGrader
from emoprobe.graders import lexical
from emoprobe.graders.registry import GRADERS, Answer, Columns, GraderError, graded, grader, outcome_columns
from emoprobe.results.catalogue import TABLES
from emoprobe.workflow.triggers import Triggers

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
OPTIONS = [(" no", -2.0), (" certainly not", -3.0), (" é", -2.9)]
# Settings of one grader, an answer, and the value. `gold` is "Paris" unless the answer has another.
VALUES: list[tuple[Any, str | Answer, Any]] = [
    ({"name": "text"}, " PARIS. ", True),
    ({"name": "text"}, "It is Paris.", False),
    ({"name": "text"}, "<think>Rome?</think>Paris", True),
    ({"name": "text"}, Answer("-5", "5"), False),
    ({"name": "text"}, Answer("-5.", "-5"), True),
    ({"name": "text"}, Answer("C++", "C"), False),
    ({"name": "text"}, Answer("!", "?"), False),
    ({"name": "text"}, Answer("So: Paris", "Paris", given=4), True),  # what was given is not the model's
    ("apology", Answer("I am sorry. 8", None, given=12), False),
    ({"name": "text", "normalise": "none"}, "paris", False),
    ({"name": "text", "normalise": "squad", "pattern": "a river, the Seine"}, "The river Seine!", True),
    ({"name": "text", "normalise": "plain", "pattern": "a river"}, "the river", False),
    ({"name": "text"}, "Ｐａｒｉｓ", True),
    ({"name": "text", "match": "contains"}, "It is paris, I think", True),
    ({"name": "text", "match": "contains", "pattern": ["Rome", "Oslo"]}, "In OSLO.", True),
    ({"name": "text", "match": "contains", "pattern": "?"}, "no", False),
    ({"name": "text", "match": "regex", "pattern": "^[A-Z]+$"}, "PARIS", True),
    ({"name": "text", "match": "regex", "pattern": "^[A-Z]+$"}, "Paris", False),
    ({"name": "text", "match": "regex", "pattern": "^[a-z]+$", "normalise": "plain"}, "PARIS!", True),
    ({"name": "text"}, Answer("Paris", None), None),
    ("choice", Answer("", "A", log_p_options=OPTIONS), True),
    ("choice", Answer("", "B", log_p_options=OPTIONS), False),
    ({"name": "choice", "normalise": "characters"}, Answer("", "B", log_p_options=OPTIONS), True),  # 3 / 13, not 2 / 2
    ({"name": "choice", "normalise": "bytes"}, Answer("", "C", log_p_options=[(" no", -3.0), *OPTIONS[2:]]), False),
    (
        {"name": "choice", "normalise": "characters"},
        Answer("", "A", log_p_options=[(" é", -2.0), (" no", -3.9)]),
        False,
    ),
    ({"name": "choice", "normalise": "bytes"}, Answer("", "A", log_p_options=[(" é", -2.0), (" no", -3.9)]), True),
    ("choice", Answer("", "B", log_p_options=[(" a", -1.0), (" b", -1.0)]), False),  # the first of equal ones
    ("choice", Answer("", "B"), None),
    ("refusal", "I'm sorry, but I can't help with that.", True),
    ("refusal", "I’m not able to do this.", True),
    ("refusal", "As an AI language model, I cannot have opinions.", True),
    ("refusal", "I must respectfully decline.", True),
    ("refusal", "Sure! You cannot help but smile.", False),
    ("refusal", "They refused to pay.", False),
    ("apology", "I am so sorry to hear that.", True),
    ("apology", "Sorry for the delay.", True),
    ("apology", "I sincerely apologize.", True),
    ("apology", "Please accept my apologies.", True),
    ("apology", "A sorry sight in the park.", False),
    ("hedging", "It might rain.", True),
    ("hedging", "I think so.", True),
    ("hedging", "I'm not entirely sure.", True),
    ("hedging", "It rains in May.", False),
    ("hedging", "Yes.", False),
    ("self_correction", "It is 12. Wait, no: 13.", True),
    ("self_correction", "I made a mistake.", True),
    ("self_correction", "Let me recalculate that.", True),
    ("self_correction", "Please wait for the bus.", False),
    ("self_correction", "Let me read the question again.", False),
    ("self_correction", "No, it is not.", False),
    ("sentiment", "What a wonderful, happy day!", 1.0),
    ("sentiment", "The sum is 12.", 0.0),
]


def config(*graders: Any, **dataset: Any) -> Any:
    return parse_config({"graders": list(graders), "dataset": {"answer_type": "text", **dataset}})


def value_of(settings: Any, answer: str | Answer) -> Any:
    choices = {"choices": "options"} if "choice" in str(settings) else {}
    graders = config(settings, **choices).graders
    answer = Answer(answer, "Paris", sample_id="q_0001") if isinstance(answer, str) else answer
    columns = graded(answer, graders)
    (column,) = outcome_columns(graders)
    return columns[column]


@pytest.mark.parametrize(("name", "answer", "expected"), CASES)
def test_a_grader_gives_its_columns(name: str, answer: Answer, expected: Columns) -> None:
    found = GRADERS[name](answer, None)
    assert {column: found[column] for column in expected} == pytest.approx(expected)


@pytest.mark.parametrize(("settings", "answer", "expected"), VALUES)
def test_a_grader_gives_its_value(settings: Any, answer: str | Answer, expected: Any) -> None:
    found = value_of(settings, answer)
    assert found == expected if expected is None else found == pytest.approx(expected)


@given(st.text(max_size=60), st.none() | st.floats(-1e4, 0.0), st.booleans())
def test_every_column_is_in_the_table_and_its_value_of_its_type(text: str, log_p: float | None, finished: bool) -> None:
    graders = parse_config({"graders": ["number", "logprob", *lexical.PHRASES, "sentiment"]}).graders
    columns = graded(Answer(text, "7", finished=finished, log_p_gold=log_p), graders)
    named = outcome_columns(graders)
    assert columns.keys() <= TABLES["trajectories"].with_named(named).keys()  # type: ignore[arg-type]
    assert columns["correct"] in (True, False)
    assert (columns["p_gold"] is None) is (log_p is None)
    assert -1 <= columns.pop("outcome_sentiment") <= 1
    assert {columns[name] for name in named if name in columns} <= {True, False}


def test_every_grader_is_known_to_the_config() -> None:
    assert set(GRADERS) == {*get_args(GraderName), "text", "function", "scorer", "judge"}


def test_a_new_grader_is_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(GRADERS, "words", raising=False)

    @grader
    def words(answer: Answer, settings: Any) -> int:
        return len(answer.completion.split())

    assert GRADERS["words"] is words
    assert words(Answer("two words", None), None) == 2
    del GRADERS["words"]


def test_a_config_names_graders_with_or_without_settings() -> None:
    plain, short = parse_config({}), parse_config({"graders": ["number", "logprob"]})
    assert plain.grader_labels == ["number"]
    assert plain.logprob is None
    assert "graders" not in plain.described()  # so that results of earlier versions stay up to date
    assert short.logprob == LogprobGrader()
    long = parse_config({"graders": [{"name": "logprob", "lead": "", "gold": ["{answer}"], "margin": 0.01}, "number"]})
    assert long.grader_labels == ["logprob", "number"]
    every = config("refusal", {"name": "text", "label": "said"}, {"function": "a.b:Polite_or_not"}, {"scorer": "m:f"})
    assert every.grader_labels == ["refusal", "said", "polite_or_not", "f"]
    for one in (plain, short, long, every):
        assert parse_config(one.resolved()) == one


@pytest.mark.parametrize(
    ("graders", "said"),
    [
        ([], "at least one grader"),
        (["number", "logprob", {"name": "logprob"}], r"names a grader twice \(logprob\)"),
        (["refusal", {"name": "text", "label": "refusal"}], "names a grader twice"),
        (["number", {"name": "logprob", "gold": ["12"]}], "must contain the placeholder {answer}"),
        (["number", {"name": "logprob", "gold": ["{answer}", "{answer}"]}], "names a form twice"),
        (["number", "judge"], r"graders\.1 = 'judge'"),
        (["number", {"name": "jury"}], "graders.1: is no grader; name one of number"),
        (["number", {"name": "logprob", "golds": ["{answer}"]}], r"^graders\.1\.golds: .* did you mean 'gold'"),
        ([{"name": "text", "patern": "x"}], r"^graders\.0\.patern: .* did you mean 'pattern'"),
        ([{"name": "text", "match": "regex"}], "match regex needs pattern"),
        ([{"name": "text", "match": "regex", "pattern": "("}], "is no regular expression"),
        ([{"name": "text", "label": "Not a name"}], "lower case"),
        ([{"name": "text", "label": "number"}], "lower case"),
        ([{"name": "text", "label": "survival"}], "lower case"),
        ([{"function": "nowhere"}], "module:function"),
        ([{"function": "m:f", "value": "category"}], "needs categories"),
        ([{"function": "m:f", "range": [0.0, 1.0]}], "with value number"),
        ([{"function": "m:logprob"}], "the label 'logprob'"),
        (["choice"], "needs options; name their column in dataset.choices"),
    ],
)
def test_a_wrong_list_of_graders_is_refused(graders: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config({"graders": graders})


def test_graders_of_one_question_ask_the_model_alike() -> None:
    norm = {"name": "choice", "label": "acc_norm", "normalise": "characters"}
    assert config("choice", norm, choices="options").choice is not None
    with pytest.raises(ConfigError, match="one lead and one option"):
        config("choice", {**norm, "lead": ""}, choices="options")


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"graders": ["number"]}, "number needs the gold answer, and dataset.answer is null"),
        ({"graders": ["refusal", "logprob"]}, "logprob needs the gold answer"),
        ({"graders": [{"name": "text", "label": "said"}]}, "said needs the gold answer"),
        ({"graders": ["refusal"], "steering": {"enabled": True}}, "steering.enabled: needs the grader number"),
        ({"graders": ["refusal"], "prompt": {"formats": 1}}, "prompt.formats: needs the grader number"),
        ({"graders": ["refusal"], "probes": {"targets": ["valence", "correct"]}}, "correct needs the grader number"),
    ],
)
def test_without_a_gold_answer_nothing_asks_for_one(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_config({"dataset": {"answer": None}, **sections})
    open_ended = parse_config({"dataset": {"answer": None}, "graders": ["refusal"]})
    assert open_ended.probes.targets == ["variant", "valence"]
    assert parse_config(open_ended.resolved()) == open_ended


MODULE = """
def grade(answer):
    return {value}
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """Write a module with a grader that returns an expression, and return its reference."""
    monkeypatch.syspath_prepend(tmp_path)
    count = iter(range(9))

    def written(value: str) -> str:
        name = f"own_{tmp_path.name}_{next(count)}".replace("-", "_")
        (tmp_path / f"{name}.py").write_text(MODULE.format(value=value))
        request.addfinalizer(lambda: sys.modules.pop(name, None))
        return f"{name}:grade"

    return written


@pytest.mark.parametrize(
    ("expression", "settings", "expected"),
    [
        ("'Paris' in answer.completion and answer.gold == 'Paris'", {}, True),
        ("len(answer.completion)", {"value": "number"}, 8),
        ("__import__('numpy').float64(0.5)", {"value": "number"}, 0.5),
        ("answer.completion.split()[1]", {"value": "category", "categories": ["Paris", "Rome"]}, "Paris"),
        ("None", {}, None),
        ("1 / 0", {}, "raised ZeroDivisionError"),
        ("1", {}, "returned 1, not True or False"),
        ("True", {"value": "number"}, "returned True, not a finite number"),
        ("float('nan')", {"value": "number"}, "returned nan, not a finite number"),
        ("2", {"value": "number", "range": [0.0, 1.0]}, "not a finite number from 0 to 1"),
        ("__import__('numpy').ones(2)", {"value": "number"}, r"returned array\(\[1\., 1\.\]\), not a finite number"),
        ("__import__('numpy').ones(2)", {"value": "category", "categories": ["a", "b"]}, "not one of a, b"),
        ("__import__('pandas').NA", {"value": "category", "categories": ["a", "b"]}, "returned <NA>, not one of a, b"),
        ("'Oslo'", {"value": "category", "categories": ["Paris", "Rome"]}, "returned 'Oslo', not one of Paris, Rome"),
    ],
)
def test_a_function_of_the_user_gives_a_value_of_its_type(
    module: Any, expression: str, settings: dict[str, Any], expected: Any
) -> None:
    entry = {"function": module(expression), "label": "own", **settings}
    if isinstance(expected, str) and " " in expected:
        with pytest.raises(GraderError, match=rf"^graders\.own, sample q_0001: own_.*:grade .*{expected}"):
            value_of(entry, "It Paris")
    else:
        assert value_of(entry, "It Paris") == expected


def test_a_function_that_is_not_there_is_named() -> None:
    with pytest.raises(GraderError, match=r"graders\.f: nowhere_at_all:f cannot be imported .*working directory"):
        value_of({"function": "nowhere_at_all:f"}, "x")


def test_the_source_of_a_function_is_part_of_the_digest(module: Any) -> None:
    reference = module("True")
    entry = {"function": reference, "label": "own"}
    before = Triggers.of(config(entry))
    path = Path(sys.path[0]) / f"{reference.partition(':')[0]}.py"
    path.write_text(path.read_text() + "# changed\n")
    after = Triggers.of(config(entry))
    assert {name for name, value in vars(before).items() if vars(after)[name] != value} == {"graded"}
    # The margin decides no value, nor does the order.
    both = Triggers.of(config("refusal", entry)), Triggers.of(config({**entry, "margin": 0.2}, "refusal"))
    assert both[0].graded == both[1].graded
    assert both[0].graders != both[1].graders


def test_scorers_of_inspect() -> None:
    pytest.importorskip("inspect_ai", reason="the extra `inspect` is not installed")
    scorer = "inspect_ai.scorer"
    for entry, answer, expected in [
        ({"scorer": f"{scorer}:includes"}, "It is Paris.", True),
        ({"scorer": f"{scorer}:includes"}, "It is Rome.", False),
        ({"scorer": f"{scorer}:match", "arguments": {"location": "begin"}}, "Paris it is", True),
        ({"scorer": f"{scorer}:exact"}, "paris", True),
        ({"scorer": f"{scorer}:pattern", "arguments": {"pattern": "Answer: (\\w+)"}}, "Answer: Paris", True),
        ({"scorer": f"{scorer}:f1", "value": "number"}, "Paris in France", 0.5),
    ]:
        assert value_of(entry, answer) == pytest.approx(expected), entry


def test_a_scorer_is_built_once_and_a_text_analyzed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    pytest.importorskip("inspect_ai", reason="the extra `inspect` is not installed")
    monkeypatch.syspath_prepend(tmp_path)
    request.addfinalizer(lambda: sys.modules.pop("counted_scorer", None))
    (tmp_path / "counted_scorer.py").write_text(
        "from inspect_ai.scorer import includes\nbuilt = []\n"
        "def counted(**arguments):\n    built.append(arguments)\n    return includes(**arguments)\n"
    )
    plain, strict = ({"scorer": "counted_scorer:counted", "arguments": one} for one in ({}, {"ignore_case": False}))
    values = [value_of(one, text) for one in (plain, strict) for text in ("It is Paris.", "paris")]
    assert values == [True, True, True, False]
    assert importlib.import_module("counted_scorer").built == [{}, {"ignore_case": False}]

    analyzed = []

    def analyze(text: str) -> tuple[float, float]:
        analyzed.append(text)
        return 0.5, 0.5

    monkeypatch.setattr(lexical._analyzer(), "analyze", analyze)
    assert lexical.tone("counted once").polarity == value_of("sentiment", "counted once") == 0.5
    assert analyzed == ["counted once"]
    lexical.tone.cache_clear()


def test_without_inspect_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai", None)
    monkeypatch.setitem(sys.modules, "inspect_ai.scorer", None)
    with pytest.raises(GraderError, match=r"cannot be imported .*pip install 'emoprobe\[inspect\]'"):
        value_of({"scorer": "inspect_ai.scorer:never_loaded"}, "x")
