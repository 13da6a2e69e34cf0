"""The first screen of a report: its sentences follow from the tables, and say nothing that a folder does not."""

from __future__ import annotations

from typing import Any

import pytest

from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.report import front
from emoprobe.report.done import done
from emoprobe.report.statements.behaviour import why
from emoprobe.results.catalogue import TABLES
from emoprobe.results.metadata import RunMetadata


def row(verdict: str, low: float | None, high: float | None, p: float | None = 0.01, **values: Any) -> dict[str, Any]:
    known = low is not None and high is not None
    return {
        **dict.fromkeys(TABLES["paired_tests"].columns),
        "variant": "joy",
        "reference": "filler",
        "measure": "correct",
        "family": "primary",
        "verdict": verdict,
        "difference": (low + high) / 2 if low is not None and high is not None else None,
        "low": low,
        "high": high,
        "p_holm": p,
        "p_equivalent_holm": p,
        "no_interval": None if known else "2 questions",
        "n": 64,
        **values,
    }


CONFIG = parse_config(
    {
        "dataset": {"source": "gsm8k"},
        "variants": {
            "control": {},
            "filler": {"texts": ["The desk is brown."], "valence": "neutral"},
            "joy": {"texts": ["What a day!", "Hurray!"], "valence": "positive"},
            "gloom": {"text": "Alas.", "valence": "negative"},
        },
    }
)


def report(*rows: dict[str, Any], **values: Any) -> dict[str, Any]:
    accuracy = [
        {"variant": name, "valence": None, "texts": texts, "correct": 3, "n": 4, "accuracy": 0.75}
        for name, texts in (("control", 0), ("filler", 1), ("joy", 2), ("gloom", 1))
    ]
    return {
        "model": {"id": "tiny", "dtype": None, "revision": None},
        "trajectories": 16,
        "samples": 4,
        "example": None,
        "truncated": 0.0,
        "plan_sha256": None,
        "accuracy": accuracy,
        "paired_tests": list(rows),
        "probes": [],
        "steering": [],
        "autoencoders": [],
        "outcomes": [],
        "statements": [],
        **values,
    }


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (row("different", 0.02, 0.2), "The whole interval lies above zero"),
        (
            row("different_here", -0.2, -0.02),
            "below zero, and the test shows a difference (p = 0.01 after correction",
        ),
        (row("different_here", -0.2, -0.02), "This speaks of the texts used alone."),
        (row("equivalent", -0.05, 0.04), "within 10 points of zero, and the test rejects a larger effect (p = 0.01"),
        (row("equivalent", -0.11, 0.04), "The 90 % interval, which this test uses, lies within 10 points"),
        (row("undecided", -0.2, 0.04), "includes zero and losses of 10 points or more; the test shows no"),
        (row("undecided", -0.2, 0.1), "The interval includes zero and losses and gains of 10 points or more; the test"),
        (
            row("undecided", -0.09, 0.04),
            "which is not corrected, lies within 10 points of zero; the corrected test does not",
        ),
        (
            row("undecided", 0.01, 0.4, 0.3),
            "excludes zero; the corrected test does not reject (p = 0.3 after correction",
        ),
        (row("undecided", None, None, None), "There are too few data for an interval: 2 questions."),
        (row("note", -0.1, 0.1, None), "was not registered in advance"),
    ],
)
def test_the_reason_fits_the_verdict(entry: dict[str, Any], expected: str) -> None:
    text = why(entry, 0.1)
    assert expected in text
    assert text.endswith(".")
    assert ("texts used" in text) is entry["verdict"].endswith("_here")


def test_the_answer_counts_every_comparison_once() -> None:
    planned = row("equivalent", -0.02, 0.02, family="planned", variant="negative", reference="positive")
    rows = [planned, row("different", 0.02, 0.2), row("undecided", -0.3, 0.1, variant="gloom")]
    rows.append(row("different", 0.02, 0.2, family="secondary", reference="control"))
    rows.append(row("different", 0.02, 0.2, measure="lenient", family="secondary"))
    said: list[dict[str, Any]] = [
        {"about": "accuracy:negative-positive", "verdict": "equivalent", "text": "Planned: equal.", "p": 0.01},
        {"about": "probe:valence", "verdict": "found", "text": "", "p": 0.005},
        {"about": "probe:correct", "verdict": "not_found", "text": "", "p": 0.4},
        {"about": "probe:valence", "verdict": "note", "text": "Elsewhere.", "p": None},
    ]
    probes = [
        {"target": "variant", "verdict": "note", "auroc": 0.99, "p": None},
        {"target": "valence", "verdict": "found", "auroc": 0.9, "p": 0.005},
        {"target": "correct", "verdict": "not_found", "auroc": 0.6, "p": 0.4},
    ]
    assert front.answer(report(*rows, statements=said, probes=probes), 0.1) == [
        "Planned: equal.",
        "Of 2 other comparisons with filler in strict accuracy, 1 is different (joy), 1 is undecided (gloom).",
        "The valence of the text can be read from the activations beyond the baselines (AUROC 0.90, p = 0.005); whether "
        "the answer is right is not shown to be readable from the activations beyond the baselines (AUROC 0.60, p = 0.4).",
    ]
    # Before the last look the statements say that probes are not tested yet, whatever their table has.
    early = [{**entry, "verdict": "note", "p": None} for entry in said]
    assert len(front.answer(report(*rows, statements=early, probes=probes), 0.1)) == 2
    alone = row("undecided", None, None, variant="joy")
    assert front.answer(report(alone), 0.1) == ["Of 1 comparison with filler in strict accuracy, 1 is undecided (joy)."]
    assert front.answer(report(), 0.1) == ["No variant is compared with another here."]


def test_an_outcome_without_primary_comparisons_does_not_hide_those_of_another() -> None:
    """A judge that compares with another reference than the primary one has secondary comparisons alone."""
    preferred = row("note", 0.1, 0.3, None, measure="outcome_better", value="preference", family="better_secondary")
    assert front.answer(report(preferred), None) == ["All comparisons are secondary."]
    judge = {
        "name": "judge",
        "label": "better",
        "rubric": "Which one is better?",
        "model": "m",
        "compare_with": "control",
    }
    graders = [judge | {"endpoints": ["https://host/v1"]}, "hedging"]
    config = parse_config(CONFIG.model_dump(mode="json", exclude_unset=True) | {"graders": graders})
    equivalent = row("equivalent", -0.02, 0.02, measure="outcome_hedging", value="number", family="hedging_primary")
    both = report(preferred, equivalent)
    assert [one.name for one in front.comparisons(config, both)] == ["joy"]
    (said,) = front.answer(both, front.margin_of(config, both))
    assert said.startswith("Of 1 comparison with filler in mean hedging, 1 is equivalent")


def test_bars_share_one_scale_and_stay_inside() -> None:
    rows = [row("undecided", -0.9, 0.1), row("undecided", -0.01, 0.02, variant="gloom"), row("undecided", None, None)]
    found = front.comparisons(CONFIG, report(*rows))
    assert found[2].bar is None
    bars = [entry.bar for entry in found[:2]]
    for bar in bars:
        assert bar is not None
        assert 0 <= bar["low"] <= bar["estimate"] <= bar["high"] <= 100
        assert bar["margin_low"] == pytest.approx(100 - bar["margin_high"], abs=0.02)
    assert bars[0] is not None
    assert bars[1] is not None
    assert bars[0]["margin_low"] == bars[1]["margin_low"]
    assert [entry.example for entry in found[:2]] == ["“What a day!”", "“Alas.”"]
    assert [entry.share for entry in found[:2]] == ["3/4", "3/4"]


def test_what_was_done_names_only_what_is_known() -> None:
    known = dict(done(CONFIG, report(example="How many?\n\nTwo."), RunMetadata()))
    assert known["Questions"] == "4 of gsm8k, such as “How many? Two.”"
    assert known["Variants"] == "2 (1 positive, 1 negative), compared with filler and control, 1 to 2 texts each"
    assert "Made" not in known
    strange = dict(done(Config(), report(model={"id": None, "dtype": None, "revision": None}), RunMetadata()))
    assert strange["Model"] == "unknown"
    assert strange["Questions"] == "4 of unknown origin"
    assert not strange.keys() & {"Prompt", "Activations", "Plan"}
    assert front.question(CONFIG, report()) == (
        "Does the tone of a text before the question change how often tiny answers gsm8k correctly?"
    )


@pytest.mark.parametrize(
    ("turn", "where"),
    [
        ("first", "before the question"),
        (1, "before the question"),
        (2, "in turn 2"),
        ("last", "in the last turn"),
        ("all", "in every turn"),
    ],
)
def test_the_question_of_several_turns(turn: str | int, where: str) -> None:
    config = parse_config(
        {
            "dataset": {"source": "gsm8k"},
            "conversation": {"kind": "scripted", "turns": [{"text": "Sure?"}]},
            "capture": {"enabled": False},
            "variants": {"control": {}, "joy": {"text": "What a day!", "valence": "positive", "turn": turn}},
        }
    )
    asked = front.question(config, report())
    assert asked.startswith(
        f"Does the tone of a text {where} change how often the last answer of tiny to gsm8k is right"
    )
    assert dict(done(config, report(), RunMetadata()))["Turns"] == "2: the question, then “Sure?”"
    assert "Turns" not in dict(done(CONFIG, report(), RunMetadata()))


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["found"], "The one direction is shown to steer the answers beyond the controls."),
        (["not_found", "note"], "The one direction is not shown to steer the answers beyond the controls."),
        (["found", "not_found"], "1 of 2 directions are shown to steer the answers beyond the controls."),
        (["not_found", "not_found"], "None of 2 directions are shown to steer the answers beyond the controls."),
    ],
)
def test_the_answer_counts_directions_that_were_tested(verdicts: list[str], expected: str) -> None:
    said = [{"about": f"steering:{number}", "verdict": one, "p": 0.1} for number, one in enumerate(verdicts)]
    assert front.answer(report(statements=said), 0.1)[-1] == expected
