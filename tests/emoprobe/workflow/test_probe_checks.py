"""Verdicts of the probes that a plan says are out of reach."""

from __future__ import annotations

from typing import Any

import pytest

from emoprobe.config.files import parse_config
from emoprobe.conversations.samples import captured_pairs
from emoprobe.workflow.probe_checks import inseparable

NEGATIVE, POSITIVE = ("anger", "fear", "gloom", "envy"), ("joy", "hope", "calm", "pride")


def lines(negative: list[str], positive: list[str], **sections: Any) -> list[str]:
    variants: dict[str, Any] = {"control": {}} | {
        name: {"texts": [f"{name} {text}" for text in texts], "valence": valence}
        for names, texts, valence in ((NEGATIVE, negative, "negative"), (POSITIVE, positive, "positive"))
        for name in names
    }
    config = parse_config({"variants": variants, "dataset": {"samples": 24}, **sections})
    return list(inseparable(config, captured_pairs(config)))


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
