"""Verdicts that a plan says are out of reach."""

from __future__ import annotations

from typing import Any

import pytest

from emoprobe.config.files import parse_config
from emoprobe.conversations.samples import captured_pairs
from emoprobe.workflow.verdict_checks import few_texts, lone_judges, unreachable_valence

NEGATIVE, POSITIVE = ("anger", "fear", "gloom", "envy"), ("joy", "hope", "calm", "pride")


def lines(negative: list[str], positive: list[str], tones: int = 4, **sections: Any) -> list[str]:
    variants: dict[str, Any] = {"control": {}} | {
        name: {"texts": [f"{name} {text}" for text in texts], "valence": valence}
        for names, texts, valence in ((NEGATIVE, negative, "negative"), (POSITIVE, positive, "positive"))
        for name in names[:tones]
    }
    config = parse_config({"variants": variants, "dataset": {"samples": 24}, **sections})
    return list(unreachable_valence(config, captured_pairs(config)))


SHORT, MIDDLE, LONG = ("word", "word word word", "word word word word word word")


@pytest.mark.parametrize(
    ("negative", "positive", "named"),
    [
        ([SHORT, LONG], [SHORT, LONG], None),
        ([SHORT, MIDDLE], [MIDDLE, SHORT], None),
        ([LONG], [SHORT], "differ in words by"),
        ([LONG, MIDDLE], [SHORT, SHORT], "differ in words by"),
        ([SHORT + "!!", LONG + "!!"], [SHORT + "!", LONG + "!"], "differ in punctuation by"),
        ([LONG + "!"], [SHORT], "differ in words and punctuation by"),
    ],
)
def test_a_plan_says_when_valences_cannot_be_separated(
    negative: list[str], positive: list[str], named: str | None
) -> None:
    found = lines(negative, positive)
    assert (named is None) == (found == [])
    assert all(named is not None and named in line for line in found)


def test_texts_do_not_matter_where_valence_is_no_target() -> None:
    assert lines([LONG], [SHORT], probes={"targets": ["correct"]}) == []


@pytest.mark.parametrize("tones", [1, 3])
def test_a_plan_says_when_a_valence_has_too_few_variants(tones: int) -> None:
    (line,) = lines([SHORT, LONG], [SHORT, LONG], tones=tones)
    assert f"{tones} negative and {tones} positive variant" in line
    assert "it takes 4 of each" in line


def test_each_reason_has_a_line() -> None:
    few, apart = lines([LONG], [SHORT], tones=2)
    assert "it takes 4 of each" in few
    assert "differ in words by" in apart


@pytest.mark.parametrize("tones", [0, 1])
def test_nothing_is_said_where_a_valence_has_no_variant(tones: int) -> None:
    variants: dict[str, Any] = {"control": {}} | {
        name: {"text": name, "valence": "negative"} for name in NEGATIVE[:tones]
    }
    config = parse_config({"variants": variants})
    assert list(unreachable_valence(config, captured_pairs(config))) == []


@pytest.mark.parametrize(
    ("texts", "samples", "asks", "there"),
    [(24, 24, 1, None), (64, 8, 3, None), (23, 64, 1, "23"), (64, 12, 1, "12"), (1, 64, 1, "1"), (0, 64, 1, None)],
)
def test_a_plan_says_where_texts_are_too_few_for_a_tone(texts: int, samples: int, asks: int, there: str | None) -> None:
    variants: dict[str, Any] = {"control": {}}
    if texts:
        variants["joy"] = {"texts": [f"What joy, {number}!" for number in range(texts)], "asks": asks}
    found = few_texts(parse_config({"variants": variants, "dataset": {"samples": samples}}))
    assert (there is None) == (found == [])
    assert all("with joy will be" in line and f"(there are {there})" in line for line in found)


def test_texts_that_are_too_few_are_counted_from_the_fewest_to_the_most() -> None:
    variants = {"control": {}, "joy": {"texts": ["What joy!"] * 24}, "woe": {"texts": ["Woe!", "Alas!"]}}
    (line,) = few_texts(parse_config({"variants": variants}))
    assert "joy, woe" in line
    assert "1 to 2" in line


def test_a_judge_that_guesses_the_variant_needs_no_second_judge() -> None:
    judge = {"name": "judge", "model": "m", "endpoints": ["http://127.0.0.1:9"]}
    graders = [{**judge, "rubric": "Is it polite?", "label": "polite"}, {**judge, "rubric": "guess"}]
    lines = lone_judges(parse_config({"variants": {"control": {}, "joy": {"text": "What joy!"}}, "graders": graders}))
    assert [line.partition(":")[0] for line in lines] == ["graders.polite"]
