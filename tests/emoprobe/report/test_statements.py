"""Sentences say what their numbers say, of whom they may."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from emoprobe.analysis.behaviour import accuracy, consistency
from emoprobe.analysis.limits import data_limits
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.analysis.preregistration import analysis_plan, deviations
from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.report.statements.behaviour import comparisons
from emoprobe.report.statements.notes import notes
from emoprobe.results.preregistration import Preregistration
from emoprobe.results.statement import Statement
from tests.calibration.trajectories import Scene, simulate

MARGIN = 0.1


def said(scene: Scene, seed: int = 0) -> list[Statement]:
    return comparisons(paired_tests(simulate(scene, np.random.default_rng(seed)), MARGIN), MARGIN)


def noted(scene: Scene, plan: Preregistration | None = None, changed: list[str] | None = None) -> dict[str, str]:
    table = simulate(scene, np.random.default_rng(0))
    found = notes(
        data_limits(table, accuracy(table), paired_tests(table, MARGIN), consistency(table), plan, changed or [])
    )
    assert all(statement.verdict == "note" for statement in found)
    return {statement.about: statement.text for statement in found}


def config(samples: int = 64, texts: int = 8, tones: int = 4, **sections: object) -> Config:
    several = [f"text {number}" for number in range(texts)]
    variants: dict[str, object] = {"control": {}, "filler": {"texts": several}}
    variants |= {f"tone{number}": {"texts": several} for number in range(tones)}
    return parse_config({"dataset": {"samples": samples}, "variants": variants, **sections})


def test_a_sentence_of_several_texts_speaks_of_the_tone() -> None:
    statements = said(Scene(128, (0.9, 0.5), 0.5))
    assert statements
    for statement in statements:
        assert "this text" not in statement.text.lower()
        assert "8 texts" in statement.text


def test_a_sentence_of_one_text_speaks_of_this_text() -> None:
    first, *_ = said(Scene(64, (0.95,), 0.3, texts=1))
    assert first.text.startswith("This text of tone0 raises strict accuracy compared with this text of filler (")
    assert "64 questions" in first.text
    assert "texts" not in first.text


def test_each_verdict_has_its_words_and_numbers() -> None:
    found = {statement.about: statement for statement in said(Scene(1319, (0.2, 0.5, 0.55), 0.5, difficulty=3.0))}
    lowered, alike = found["accuracy:tone0-filler"], found["accuracy:tone1-filler"]
    assert lowered.verdict == "different"
    assert "Tone0 lowers strict accuracy" in lowered.text
    assert alike.verdict == "equivalent"
    assert "within 10.0 points" in alike.text
    for statement in found.values():
        assert statement.low is not None
        assert statement.estimate is not None
        assert statement.high is not None
        assert statement.low <= statement.estimate <= statement.high
        assert statement.n == 1319
        assert statement.text.startswith("Secondary: ") is statement.about.endswith("-control")
        assert ("no added text" in statement.text) is statement.about.endswith("-control")


@pytest.mark.parametrize("scene", [Scene(7), Scene(64, texts=2)])
def test_with_too_little_nothing_is_decided(scene: Scene) -> None:
    statements = said(scene)
    assert statements
    for statement in statements:
        assert statement.verdict == "undecided"
        assert statement.low is None
        assert "no interval, fewer than" in statement.text


def test_notes_tell_what_is_the_matter() -> None:
    assert "every answer is correct" in noted(Scene(20, (1 - 1e-9,), 1 - 1e-9, 1 - 1e-9))["data:ceiling"].lower()
    assert "No answer is correct" in noted(Scene(20, (1e-9,), 1e-9, 1e-9))["data:floor"]
    assert "cut off" in noted(Scene(64, cut=0.4))["data:truncation"]
    assert "unmarked" in noted(Scene(64, unmarked=0.4))["data:extraction"]
    assert "No server answered" in noted(Scene(64, failures=0.1))["data:failures"]
    assert "disagree" in noted(Scene(64, draws=3))["data:noise"]
    assert "no filler" in noted(Scene(64, filler=None))["data:references"]
    quiet = noted(Scene(64))
    assert {"data:truncation", "data:failures", "data:noise", "data:floor", "data:references"}.isdisjoint(quiet)
    assert "no plan" in quiet["data:plan"]


def test_the_plan_follows_from_the_config_alone() -> None:
    plan = analysis_plan(config())
    assert plan.primary_reference == "filler"
    assert [entry.family for entry in plan.contrasts] == ["primary"] * 4 + ["secondary"] * 5
    assert {entry.variant: entry.unit for entry in plan.estimators}["control"] == "no text"
    assert plan.sha256 == analysis_plan(config()).sha256
    assert Preregistration.model_validate_json(plan.model_dump_json()).sha256 == plan.sha256
    assert plan.sha256 != analysis_plan(config(analysis={"margin": 0.2})).sha256
    assert [row.text_deviation for row in plan.power] == [0.0, 0.3]
    assert analysis_plan(parse_config({"variants": {"control": {}}})).power == []


def test_scrambled_texts_are_texts() -> None:
    plan = analysis_plan(
        parse_config({"variants": {"control": {}, "a": {"texts": ["One.", "Two."]}, "b": {"scramble": "a"}}})
    )
    assert {entry.variant: (entry.unit, entry.texts) for entry in plan.estimators}["b"] == ("texts", 2)


def test_the_plan_says_what_is_out_of_reach() -> None:
    few = noted(Scene(8), analysis_plan(config(8)))
    assert "Not reachable at this n" in few["data:reach"]
    assert "Needs more texts" in noted(Scene(64), analysis_plan(config()))["data:texts"]
    one = noted(Scene(64, texts=1), analysis_plan(config(texts=1)))
    assert "no sentence here speaks for a tone" in one["data:texts"]
    assert "between a single text and filler" in one["data:power"]


def test_texts_of_another_length_are_told() -> None:
    lengths = {"filler": [20] * 8, "tone0": [30] * 8, "tone1": [21] * 8}
    plan = analysis_plan(config(), lengths)
    assert [(entry.variant, entry.matched) for entry in plan.token_match] == [("tone0", False), ("tone1", True)]
    assert "tone0 1.50" in noted(Scene(64), plan)["data:tokens"]


def test_deviations_from_the_plan_are_listed() -> None:
    plan = analysis_plan(config())
    table = simulate(Scene(64), np.random.default_rng(0))
    assert deviations(plan, config(), table) == []
    changed = deviations(plan, config(128, analysis={"margin": 0.2}), table)
    assert any("margin" in text and "0.1" in text and "0.2" in text for text in changed)
    assert any("number of questions" in text for text in changed)
    fewer = pd.DataFrame(table[(table["sample_id"] < 60) & (table["variant"] != "tone3")])
    assert deviations(plan, config(), fewer) == ["60 questions have trajectories, not 64", "tone3 has no trajectories"]
    assert "deviates" in noted(Scene(64), plan, changed)["data:plan"]
    assert plan.sha256[:12] in noted(Scene(64), plan)["data:plan"]


def test_references_must_be_variants() -> None:
    with pytest.raises(ConfigError, match="neutral"):
        config(analysis={"references": ["neutral"]})
    with pytest.raises(ConfigError, match="twice"):
        config(analysis={"references": ["filler", "filler"]})
