"""Sentences say what their numbers say, of whom they may."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from emoprobe.analysis.behaviour import accuracy, consistency
from emoprobe.analysis.contrasts import PlannedSides
from emoprobe.analysis.format_noise import format_noise
from emoprobe.analysis.limits import Limit, LimitKind, data_limits
from emoprobe.analysis.looks import is_last, registered_looks, weight_of
from emoprobe.analysis.origin_limits import folder_limits
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.analysis.preregistration import LATER, analysis_plan, deviations
from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.report.statements.behaviour import comparisons
from emoprobe.report.statements.notes import notes
from emoprobe.report.summary import described_alone
from emoprobe.results.layout import Layout
from emoprobe.results.preregistration import Preregistration, Registration, append_registration, read_registrations
from emoprobe.results.statement import Statement, Verdict
from tests.calibration.allowance import least
from tests.calibration.behaviour import share_shown
from tests.calibration.trajectories import Scene, simulate

MARGIN = 0.1


def said(scene: Scene, seed: int = 0) -> list[Statement]:
    return comparisons(paired_tests(simulate(scene, np.random.default_rng(seed)), MARGIN), MARGIN)


def noted(
    scene: Scene,
    plan: Preregistration | None = None,
    changed: list[str] | None = None,
    written: Sequence[Registration] = (),
) -> dict[str, str]:
    table = simulate(scene, np.random.default_rng(0))
    tests = paired_tests(table, MARGIN)
    found = notes(data_limits(table, accuracy(table), tests, consistency(table), plan, changed or [], written))
    assert all(statement.verdict == "note" for statement in found)
    return {statement.about: statement.text for statement in found}


def config(samples: int = 64, texts: int = 8, tones: int = 4, **sections: object) -> Config:
    several = [f"text {number}" for number in range(texts)]
    variants: dict[str, object] = {"control": {}, "filler": {"texts": several}}
    variants |= {f"tone{number}": {"texts": several} for number in range(tones)}
    return parse_config({"dataset": {"samples": samples}, "variants": variants, **sections})


def test_a_sentence_of_several_texts_speaks_of_the_tone() -> None:
    statements = said(Scene(128, (0.9, 0.5), 0.5, texts=32))
    assert statements[1].verdict == "different"
    for statement in statements:
        assert not re.search(r"th(is|ese) [0-9 ]*texts?", statement.text.lower())
        assert "32 texts" in statement.text


def test_a_sentence_of_few_texts_speaks_of_these() -> None:
    """With questions as units, and with verdicts of their own."""
    lowered, alike = said(Scene(1319, (0.2, 0.5, 0.55), 0.5, texts=8, difficulty=3.0))[1:3]
    assert lowered.verdict == "different_here"
    assert lowered.text.startswith("These 8 texts of tone0 lower strict accuracy compared with these 8 texts of filler")
    assert "1319 questions)" in lowered.text
    assert alike.verdict == "equivalent_here"
    assert "These 8 texts of tone1 and these 8 texts of filler are equivalent" in alike.text


def test_the_planned_contrast_comes_first() -> None:
    scene = Scene(400, (0.2, 0.2, 0.8, 0.8), 0.5, texts=32)
    first, *others = said(scene)
    assert first.about == "accuracy:negative-positive"
    assert first.text.startswith(
        "Planned: these negative tones lower strict accuracy compared with these positive tones ("
    )
    assert first.estimate == pytest.approx(-0.6, abs=0.1)
    assert sum(one.text.startswith("Planned") for one in others) == 0
    table = simulate(scene, np.random.default_rng(0))
    cases: list[tuple[PlannedSides, list[str]]] = [
        ([], []),
        ([["tone0", "filler"]], ["tone0-filler"]),
        ([[["tone0", "tone3"], "control"], ["absent", "filler"]], ["tone0+tone3-control"]),
    ]
    for chosen, names in cases:
        tests = paired_tests(table, MARGIN, contrasts=chosen)
        planned = tests[tests["family"] == "planned"]
        assert [f"{row.variant}-{row.reference}" for row in planned.itertuples()] == names
        strict = tests[tests["measure"] == "correct"]
        assert not strict.duplicated(["variant", "reference"]).any()


def test_a_number_of_questions_that_was_not_registered_is_described() -> None:
    table = simulate(Scene(128, (0.9,), 0.3, texts=32), np.random.default_rng(0))
    for weight, expected in ((1.0, "different"), (0.2, "different"), (None, "note")):
        tests = paired_tests(table, MARGIN, weight=weight)
        first = comparisons(tests, MARGIN)[0]
        assert first.verdict == expected
        assert first.low is not None
        assert (first.p is None) is (weight is None)
    assert "described and not tested" in first.text
    whole, part = (paired_tests(table, MARGIN, weight=weight)["p_holm"] for weight in (1.0, 0.2))
    assert part.dropna().tolist() == pytest.approx(np.minimum(1, whole.dropna() / 0.2).tolist())


def test_a_sentence_of_one_text_speaks_of_this_text() -> None:
    first, *_ = said(Scene(64, (0.95,), 0.3, texts=1))
    assert first.text.startswith("This text of tone0 raises strict accuracy compared with this text of filler (")
    assert "64 questions" in first.text
    assert "texts" not in first.text


@pytest.mark.parametrize("texts", [1, 8])
def test_a_mean_of_several_variants_does_not_have_the_texts_of_one(texts: int) -> None:
    scene = Scene(128, (0.9, 0.9, 0.3, 0.3), 0.5, texts=texts)
    table = simulate(scene, np.random.default_rng(0))
    for contrasts, side in ((None, "positive tones"), ([["negative", ["tone2", "tone3"]]], "tone2+tone3")):
        first = comparisons(paired_tests(table, MARGIN, contrasts=contrasts), MARGIN)[0]
        assert first.text.startswith(
            f"Planned: the texts of negative tones used here raise strict accuracy compared with the texts of {side} used "
            "here ("
        )
    one = comparisons(paired_tests(table, MARGIN, contrasts=[["tone0", ["tone2"]]]), MARGIN)[0]
    assert one.text.startswith(f"Planned: th{'is text' if texts == 1 else 'ese 8 texts'} of tone0 ")


def test_the_fewer_texts_of_a_comparison_are_told() -> None:
    table = simulate(Scene(128, (0.9, 0.5), 0.5, texts=64), np.random.default_rng(0))
    fewer = table["paraphrase"].where(table["variant"] != "tone0", table["paraphrase"] % 24)
    found = {one.about: one.text for one in comparisons(paired_tests(table.assign(paraphrase=fewer), MARGIN), MARGIN)}
    assert "; 24 texts, 128 questions)" in found["accuracy:tone0-filler"]
    assert "; 64 texts, 128 questions)" in found["accuracy:tone1-filler"]
    fewer = table["paraphrase"].where(table["variant"] != "filler", table["paraphrase"] % 24)
    found = {one.about: one.text for one in comparisons(paired_tests(table.assign(paraphrase=fewer), MARGIN), MARGIN)}
    assert "; 24 texts of filler, 128 questions)" in found["accuracy:tone1-filler"]


def test_each_verdict_has_its_words_and_numbers() -> None:
    scene = Scene(1319, (0.2, 0.5, 0.55), 0.5, texts=64, difficulty=3.0)
    found = {statement.about: statement for statement in said(scene)}
    lowered, alike = found["accuracy:tone0-filler"], found["accuracy:tone1-filler"]
    assert lowered.verdict == "different"
    assert "Tone0 lowers strict accuracy" in lowered.text
    assert alike.verdict == "equivalent"
    assert "within 10 points" in alike.text
    for statement in found.values():
        assert statement.low is not None
        assert statement.estimate is not None
        assert statement.high is not None
        assert statement.low <= statement.estimate <= statement.high
        assert statement.n == 1319
        assert statement.text.startswith("Secondary: ") is statement.about.endswith("-control")
        assert ("no added text" in statement.text) is statement.about.endswith("-control")


def test_with_too_little_nothing_is_decided() -> None:
    statements = said(Scene(7))
    assert statements
    for statement in statements:
        assert statement.verdict == "undecided"
        assert statement.low is None
        assert "no interval, fewer than" in statement.text


def test_notes_tell_what_is_the_matter() -> None:
    assert "every answer is correct" in noted(Scene(20, (1 - 1e-9,), 1 - 1e-9, 1 - 1e-9))["data:ceiling"].lower()
    assert "No answer is correct" in noted(Scene(20, (1e-9,), 1e-9, 1e-9))["data:floor"]
    assert "cut off" in noted(Scene(64, cut=0.4))["data:truncation"]
    assert "no answer is marked as final" in noted(Scene(64, unmarked=0.4))["data:extraction"]
    assert "No server answered" in noted(Scene(64, failures=0.1))["data:failures"]
    assert "disagree" in noted(Scene(64, draws=3))["data:draws"]
    absent = noted(Scene(64, absent=1.0))["data:absent"]
    assert "of 384 trajectories are absent" in absent
    assert "8 texts, and a claim about it takes 24" in noted(Scene(64))["data:texts"]
    assert "up to 31% of all texts" in noted(Scene(64))["data:texts"]
    assert "known through 64 texts" in noted(Scene(128, texts=64))["data:texts"]
    assert "up to 4.6%" in noted(Scene(128, texts=64))["data:texts"]
    assert "no filler" in noted(Scene(64, filler=None))["data:references"]
    quiet = noted(Scene(64))
    unsaid = ("truncation", "failures", "draws", "floor", "references", "absent", "looks", "plans")
    assert not {f"data:{name}" for name in unsaid} & set(quiet)
    assert "no plan" in quiet["data:plan"]


def test_few_texts_of_one_variant_limit_its_own_comparisons() -> None:
    table = simulate(Scene(128, (0.9, 0.5), 0.5, texts=64), np.random.default_rng(0))
    table["paraphrase"] = table["paraphrase"].where(table["variant"] != "tone1", 0)
    tests = paired_tests(table, MARGIN)
    found = [one.text for one in notes(data_limits(table, accuracy(table), tests, consistency(table), None))]
    few, enough = (text for text in found if "the answer, up to" in text)
    assert few.startswith("Comparisons that tone1 takes part in are about the texts used, and not about tones: ")
    assert enough.startswith("Every other tone is known through at least 64 texts: ")
    assert tests["verdict"].iloc[1] == "different"


def test_a_filler_that_is_not_the_primary_reference_is_there() -> None:
    table = simulate(Scene(64), np.random.default_rng(0))
    tests = paired_tests(table, MARGIN, references=["filler", "control"])
    found = {one.about: one.text for one in notes(data_limits(table, accuracy(table), tests, consistency(table), None))}
    assert found["data:references"].startswith("The primary reference, control, adds no text")


@pytest.mark.parametrize("graded", [True, False])
def test_only_graded_answers_can_lack_a_gold_answer(tmp_path: Path, graded: bool) -> None:
    """Of 120 requests 9 failed, which are no answers; one answer has no grade, or none has any."""
    table = simulate(Scene(20, failures=0.05), np.random.default_rng(0))
    answered = table["failure"].isna()
    assert int(answered.sum()) == 111
    table.loc[answered, "completion"] = "Hello."
    table.loc[table.index[answered][:1] if graded else table.index, "correct"] = pd.NA
    data = {"dataset": {"source": "mine.jsonl", **({} if graded else {"answer": None})}}
    settings = parse_config(data | ({} if graded else {"graders": ["hedging"]}))
    found = {one.about: one.text for one in notes(folder_limits(Layout(tmp_path), settings, table))}
    told = "1 of 111 answers have no known gold answer and are left out." if graded else None
    assert found.get("data:grades") == told


@pytest.mark.parametrize(
    ("graded", "said_of_it"), [(True, "counts as wrong"), (False, "graders read what was written until then")]
)
def test_an_answer_that_was_cut_off_is_wrong_only_where_answers_are_right_or_wrong(
    graded: bool, said_of_it: str
) -> None:
    limit = Limit(LimitKind.TRUNCATED, 0.5, {"share": 0.5, "variant": "joy", "most": 0.6, "graded": graded})
    (note,) = notes([limit])
    assert note.text.startswith("50% of the completions were cut off at max_tokens (joy most, 60%); ")
    assert said_of_it in note.text
    assert ("untruncated" in note.text) is graded


def test_the_plan_follows_from_the_config_alone() -> None:
    plan = analysis_plan(config())
    assert plan.primary_reference == "filler"
    assert [entry.family for entry in plan.contrasts] == ["primary"] * 4 + ["secondary"] * 5
    assert plan.registered == {64: 1.0}
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
    assert "Needs more texts" in noted(Scene(64, texts=24), analysis_plan(config(texts=24)))["data:reach"]
    one = noted(Scene(64, texts=1), analysis_plan(config(texts=1)))
    assert "about the texts used, and not about tones" in one["data:texts"]
    assert "between a single text and filler" in one["data:power"]


def test_a_difference_that_holds_for_all_texts_is_named_once() -> None:
    row = analysis_plan(config(64)).power[0].model_copy(update={"texts": 64, "detectable": 0.325})
    other = row.model_copy(update={"text_deviation": 0.3})
    (alike,) = notes([Limit(LimitKind.POWER, None, {"rows": [row, other]})])
    assert "at least 32.5 points, whether the texts of one tone all have the same effect or differ by" in alike.text
    larger = other.model_copy(update={"detectable": 0.4})
    (apart,) = notes([Limit(LimitKind.POWER, None, {"rows": [row, larger]})])
    assert "32.5 points where the texts of one tone all have the same effect, or 40.0 points where" in apart.text


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


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"probes": {"folds": 7}}, "probes.folds changed from 5 to 7"),
        ({"probes": {"shrinkage": 0.5}}, "probes.shrinkage changed from 0.1 to 0.5"),
        ({"experiment": {"seed": 7}}, "experiment.seed changed from 42 to 7"),
        ({"capture": {"positions": ["response_mean"]}}, "capture.positions changed from"),
        ({"capture": {"samples": 8}}, "capture.samples changed from"),
        ({"dataset": {"samples": 64, "group": "template"}}, "dataset.group changed from None to template"),
        ({"analysis": {"contrasts": [["tone0", "filler"]]}}, "the comparisons changed"),
        ({"analysis": {"looks": {64: 0.5, 128: 0.5}}}, "the looks changed from"),
        ({"analysis": {"token_tolerance": 0.3}}, "analysis.token_tolerance changed from 0.15 to 0.3"),
        ({"valence": "negative"}, "variants.tone0.valence changed from None to negative"),
    ],
)
def test_what_changes_a_verdict_and_no_answer_is_a_deviation(sections: dict[str, Any], named: str) -> None:
    values = config().model_dump(mode="json", exclude_unset=True)
    values["variants"]["tone0"]["valence"] = sections.pop("valence", None)
    plan = Preregistration.model_validate_json(analysis_plan(config()).model_dump_json())
    changed = deviations(plan, parse_config(values | sections))
    assert any(named in phrase for phrase in changed), changed


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"arousal": "low"}, "variants.tone0.arousal changed from high to low"),
        ({"placement": "user_suffix"}, "variants.tone0.placement changed from user_prefix to user_suffix"),
        ({"prefill": "Well,"}, "variants.tone0.prefill changed from None to Well,"),
        ({"texts": None, "template": "Quick! {question}"}, "variants.tone0.template changed from None"),
        ({"texts": None, "transform": "json:loads"}, "variants.tone0.transform changed from None to json:loads"),
    ],
)
def test_what_makes_the_answers_of_one_variant_anew_is_a_deviation(changed: dict[str, Any], named: str) -> None:
    values = config().model_dump(mode="json", exclude_unset=True)
    values["variants"]["tone0"] |= {"valence": "negative", "arousal": "high"}
    plan = Preregistration.model_validate_json(analysis_plan(parse_config(values)).model_dump_json())
    values["variants"]["tone0"] |= changed
    told = deviations(plan, parse_config(values))
    assert any(named in phrase for phrase in told), told


def test_changed_code_and_texts_are_deviations() -> None:
    plan = analysis_plan(config(), code={"analyze_behaviour": "a", "probe_activations": "b"})
    assert deviations(plan, config(), code={"analyze_behaviour": "a", "probe_activations": "b"}) == []
    changed = deviations(plan, config(), code={"analyze_behaviour": "c", "probe_activations": "b"})
    assert changed == ["the code of analyze_behaviour changed"]
    assert any("variants.tone0.texts changed" in phrase for phrase in deviations(plan, config(texts=9)))
    # What earlier code did not record is no deviation.
    assert plan.settings is not None
    recorded = {name: value for name, value in plan.settings.items() if not name.endswith(LATER)}
    assert deviations(plan.model_copy(update={"settings": recorded}), config()) == []
    # A plan of version 0.2 has neither, and no planned contrast.
    older = plan.model_copy(update={"settings": None, "code": None, "looks": None})
    assert deviations(older, config()) == []
    assert not {"settings", "code", "looks"} & set(older.values())


def test_every_plan_that_was_written_stays(tmp_path: Path) -> None:
    path, plan = tmp_path / "preregistrations.jsonl", analysis_plan(config())
    assert read_registrations(path) == []
    append_registration(path, plan, answers=False)
    only = read_registrations(path)
    assert [(one.sha256, one.answers) for one in only] == [(plan.sha256, False)]
    append_registration(path, analysis_plan(config(32)), answers=True)
    written = read_registrations(path)
    assert written[0] == only[0]
    assert Preregistration.model_validate(written[1].plan).questions == 32
    assert "data:plans" not in noted(Scene(64), plan, written=only)
    told = noted(Scene(64), plan, written=written)["data:plans"]
    assert "1 came before this one; 1 of 2 was written when it held answers" in told


def test_looks_are_registered_in_advance() -> None:
    two = config(96, analysis={"looks": {96: 0.2, 384: 0.8}})
    plan = analysis_plan(two)
    assert (weight_of(plan.registered, 96), weight_of(plan.registered, 384)) == (0.2, 0.8)
    assert weight_of(plan.registered, 200) is None
    # A size that is added after the plan was written stays unregistered.
    assert registered_looks(two, analysis_plan(config(96))) == {96: 1.0}
    assert not is_last(plan.registered, 96)
    assert is_last(plan.registered, 384)
    assert "Look 1 of 2" in noted(Scene(96), plan)["data:looks"]
    assert "nothing is tested" in noted(Scene(100), plan)["data:looks"]
    found = described_alone(Statement(about="probe:valence", verdict=Verdict.FOUND, text="Found.", p=0.01), 384)
    assert (found.verdict, found.p) == ("note", None)
    assert "at the last look alone, with 384 questions" in found.text
    named = described_alone(Statement(about="steering:SHOUT-2", verdict=Verdict.FOUND, text="Found."), 384)
    assert named.text.startswith("Steering SHOUT-2: described")
    for looks, message in (({96: 0.5}, "sum to 1"), ({96: 1.5, 20: -0.5}, "above 0"), ({}, "looks")):
        with pytest.raises(ConfigError, match=message):
            config(analysis={"looks": looks})


def test_the_noise_of_the_answers_says_what_they_show() -> None:
    """A difference of that size is shown about as often as said."""
    scene = Scene(200, (0.5,) * 2, texts=200, difficulty=2.0)
    note = noted(scene)["data:noise"]
    detectable = float(re.search("at least ([0-9.]+) points", note)[1]) / 100  # type: ignore[index]
    assert 0.08 < detectable < 0.18
    planted = replace(scene, tones=(0.5 + detectable, 0.5))
    assert share_shown(planted, "tone0-filler", 60, seed=1) >= least(60)


def test_references_must_be_variants() -> None:
    with pytest.raises(ConfigError, match="neutral"):
        config(analysis={"references": ["neutral"]})
    with pytest.raises(ConfigError, match="twice"):
        config(analysis={"references": ["filler", "filler"]})


def test_format_noise_names_the_tones_within_and_shows_each_effect() -> None:
    scene = Scene(400, (0.5, 0.75), formats=(0.5, 0.75), texts=10_000, asks=2)
    table = simulate(scene, np.random.default_rng(3))
    tests, formats = paired_tests(table, MARGIN), format_noise(table)
    limits = data_limits(table, accuracy(table), tests, consistency(table), None, formats=formats)
    text = {statement.about: statement.text for statement in notes(limits)}
    assert "filler 2 times" in text["data:asks"]
    effects = dict(re.findall(r"(tone\d) ([+-][\d.]+) \(at most", text["data:formats"]))
    shown = tests[(tests["family"] == "primary")].set_index("variant")["difference"]
    assert effects == {name: f"{100 * shown[name]:+.1f}" for name in ("tone0", "tone1")}
    assert text["data:formats"].endswith("Within format noise: tone0.")
    unlike = format_noise(table[table["variant"] != "reformatted-2"])
    limits = data_limits(table, accuracy(table), tests, consistency(table), None, formats=unlike)
    text = {statement.about: statement.text for statement in notes(limits)}
    assert "none is shown to change it" in text["data:formats"]
    assert text["data:formats"].endswith("No tone is shown to be within format noise.")
    assert "data:formats" not in noted(Scene(24))


@pytest.mark.parametrize(
    ("lost", "said"), [("reformatted-1", "1 other format of"), ("tone0", "2 other formats of"), ("control", None)]
)
def test_format_noise_leaves_out_variants_without_a_grade(lost: str, said: str | None) -> None:
    table = simulate(Scene(64, formats=(0.5, 0.75), texts=64), np.random.default_rng(3))
    table.loc[table["variant"] == lost, ["correct", "lenient"]] = pd.NA
    tests, formats = paired_tests(table, MARGIN), format_noise(table)
    limits = data_limits(table, accuracy(table), tests, consistency(table), None, formats=formats)
    found = {statement.about: statement.text for statement in notes(limits)}
    if said is None:
        assert "data:formats" not in found
    else:
        assert found["data:formats"].startswith(f"Format noise: {said}")
        assert "nan" not in found["data:formats"]
        assert f"{lost} " not in found["data:formats"]
