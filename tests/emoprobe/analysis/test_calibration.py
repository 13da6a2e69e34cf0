"""A small part of the calibration suite; `python -m tests.calibration` runs all of it.

Seeds are fixed, and what is allowed is the exact binomial limit of so few runs, so that no test fails by chance.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emoprobe.analysis.behaviour import accuracy, consistency
from emoprobe.analysis.estimates import difference
from emoprobe.analysis.limits import LimitKind, data_limits
from emoprobe.analysis.origin_limits import first_answer_limits
from emoprobe.analysis.outcomes import survival_of
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.analysis.power import PowerDesign, Simulation, centre_of, marginal
from emoprobe.analysis.questions import Questions
from emoprobe.analysis.statistics import LEVEL
from emoprobe.config.files import parse_config
from emoprobe.report.statements.behaviour import comparisons
from emoprobe.report.statements.notes import notes
from tests.calibration import __main__ as calibrate
from tests.calibration import coverage, mixtures, outcomes, survival, types
from tests.calibration.allowance import COVERAGE, least, most
from tests.calibration.behaviour import (
    asked_scenes,
    dependent_scenes,
    format_rows,
    format_scenes,
    is_false,
    margin_scenes,
    null_scenes,
    power_checks,
    run_scene,
    run_stopping,
    selected_scenes,
    stopping_rules,
    text_scenes,
)
from tests.calibration.rows import Row
from tests.calibration.trajectories import Scene, simulate

RUNS = 12
SCENES = (
    "null, 64 texts that differ by 0.5, n = 64",
    "skewed, 8 texts, n = 1319",
    "1 text in 8 breaks, 8 texts, n = 1319",
    "1 text in 4 breaks, 64 texts, n = 96",
    "skewed, a text a question, templates, n = 200",
    "wrong answers of one tone are absent (1), 8 texts, n = 200",
    "wrong answers of one tone are absent (0.5), 64 texts, n = 400",
    "tones only lengthen answers (0.6), 64 texts, n = 400",
    "null, one text, n = 20",
    "null, 8 texts and 3 of the filler, n = 400",
    "any text helps, n = 64",
    "templates, one text, 64 questions of 10",
    "templates, 400 questions of 20",
    "4 draws of one text, n = 20",
    "failures, n = 200",
    "near the floor, n = 64",
    "one of 4 tones harms, n = 400",
    "all at once, n = 64",
    "at the margin, 8 texts, n = 400",
    "at the margin near the ceiling, one text, n = 64",
    "filler 3 times, one tone's wrong answers absent, n = 200",
    "each question under 8 ids, 1 text",
)


@pytest.mark.parametrize("name", SCENES)
def test_few_sentences_are_false(name: str) -> None:
    scenes = null_scenes() | margin_scenes() | text_scenes() | selected_scenes() | asked_scenes() | dependent_scenes()
    scene = scenes[name]
    tally = run_scene(scene, RUNS, seed=1)
    assert tally.worst() <= most(RUNS), dict(tally.false)


@pytest.mark.parametrize("texts", [8, 64])
def test_texts_that_differ_do_not_make_a_tone(texts: int) -> None:
    """At full size, McNemar over questions rejects this null in a third of the runs: it speaks of the texts used."""
    tally = run_scene(Scene(1319, texts=texts, text_deviation=0.5), RUNS, seed=1)
    assert tally.worst() <= most(RUNS)
    assert tally.intervals.share >= 0.9
    claims = {"primary different", "primary equivalent"}
    assert not claims & set(tally.said) if texts == 8 else claims & set(tally.said)


@pytest.mark.parametrize("mixture", mixtures.MIXTURES)
@pytest.mark.parametrize(("texts", "questions"), [(24, 400), (64, 400), (96, 96)])
def test_texts_of_several_kinds_make_no_false_claim(mixture: str, texts: int, questions: int) -> None:
    """A t test over 24 texts calls the skewed ones different in 12 % of runs, one in 8 that breaks equivalent in 18 %."""
    runs = 200
    found = mixtures.claims(mixture, texts, questions, 4, runs, seed=2)
    assert max(found.different, found.equivalent) <= most(runs)
    assert found.covered >= least(runs, COVERAGE)


@pytest.mark.parametrize("world", outcomes.WORLDS)
def test_p_gold_makes_few_false_claims(world: str) -> None:
    runs = 100
    for row in outcomes.rows(world, runs, seed=3):
        assert row.holds, row


@pytest.mark.parametrize("world", outcomes.PLANTED)
def test_a_planted_shift_of_p_gold_is_seen(world: str) -> None:
    for row in outcomes.rows(world, 100, seed=3):
        assert row.holds, row


@pytest.mark.parametrize(
    "world", ["words, 1 text in 16 breaks, 32 texts, n = 256", "planted: 1.5 logits in one category, n = 128"]
)
def test_outcomes_of_other_types_make_few_false_claims_and_show_what_is_planted(world: str) -> None:
    for row in types.rows(world, 20, seed=5):
        assert row.holds, row


@pytest.mark.parametrize("world", ["64 texts that differ, n = 128", "at the margin, one text, n = 128"])
def test_survival_makes_few_false_claims(world: str) -> None:
    for row in survival.rows(world, 8, seed=3):
        assert row.holds, row


def test_survival_is_of_questions_that_were_right_before_a_tone_came_in() -> None:
    table = survival.table_of(survival.PLANTED["30 points fewer survive, n = 400"], np.random.default_rng(1))
    tests = paired_tests(table, 0.1, outcomes=[survival.OUTCOME])
    row = tests[
        (tests["measure"] == "survived") & (tests["variant"] == "tone0") & (tests["reference"] == "filler")
    ].iloc[0]
    assert row["n"] == table.loc[table["variant"] == "filler", "correct_first"].sum()
    assert (row["verdict"], row["family"], row["missing"]) == ("different", "survival_primary", 0)
    turned = table.assign(correct=table["correct"] | ~table["correct_first"])  # wrong answers that become right
    again = paired_tests(turned, 0.1, outcomes=[survival.OUTCOME])
    assert again[again["measure"] == "survived"].equals(tests[tests["measure"] == "survived"])
    none = paired_tests(table.assign(correct_first=False, survived=None), 0.1, outcomes=[survival.OUTCOME])
    # Every contrast that other answers have, with the reason why nothing is tested.
    assert len(none) == len(tests[tests["measure"] == "survived"])
    assert set(none["not_tested"]) == {"no question has a right first answer on both sides"}
    assert (set(none["verdict"]), set(none["n"])) == ({"note"}, {0})
    assert none["p"].isna().all()
    assert all("is not tested, as no question has" in one.text for one in comparisons(none, 0.1, "survived"))
    # A side with answers of which none is right at first beside sides that have some.
    alone = table["variant"] == "tone0"
    table.loc[alone, ["correct_first", "survived"]] = [False, None]
    some = paired_tests(table, 0.1, outcomes=[survival.OUTCOME]).query("reference == 'filler'").set_index("variant")
    assert some["not_tested"].isna().to_dict() == {f"tone{number}": number > 0 for number in range(4)}


@pytest.mark.parametrize(
    ("variants", "tested"),
    [
        ({"joy": {"text": "Ah!", "turn": 2}}, True),
        ({"joy": {"text": "Ah!", "turn": "all"}}, False),
        ({"joy": {"text": "Ah!"}}, False),
        ({"joy": {"text": "Ah!", "turn": 2}, "begun": {"prefill": "So"}}, False),
        ({"joy": {"text": "Ah!", "turn": "last"}, "mixed": {"scramble": "joy"}}, False),
    ],
)
def test_survival_is_tested_where_no_variant_changes_the_first_answer(variants: dict[str, Any], tested: bool) -> None:
    script = {"kind": "scripted", "turns": [{"text": "Again."}]}
    config = parse_config({"variants": {"control": {}, **variants}, "conversation": script})
    assert [outcome.column for outcome in survival_of(config)] == (["survived"] if tested else [])
    world = replace(survival.WORLDS["one text, n = 24"], unlike=0.5)
    found = first_answer_limits(survival.table_of(world, np.random.default_rng(1)), config)
    assert [note.text[:24] for note in notes(found)] == (["The first answer to 21 o"] if tested else [])
    same = survival.table_of(replace(world, unlike=0.0), np.random.default_rng(1))
    assert first_answer_limits(same, config) == []
    assert survival_of(parse_config({})) == []


def test_p_gold_shows_the_same_shift_with_fewer_questions_than_accuracy() -> None:
    world = outcomes.World(96, shifts=(0.75,))
    found = outcomes.simulate(outcomes.World(96, shifts=(0.0,)), 40, np.random.default_rng(0))
    spread = [float((values[1] - values[0]).std()) for values in (found.correct, found.p_gold)]
    assert spread == pytest.approx([0.38, 0.07], abs=0.02)  # as measured on the embedded model
    assert outcomes.power(world, 100, 1) > 0.9
    assert outcomes.power(world, 100, 1, correct=True) < 0.5


def test_a_filler_that_is_asked_several_times_makes_no_false_claim() -> None:
    """Where texts are shared between questions: questions alone as units reject this null in 70 % of runs."""
    found = mixtures.asked_claims(24, 400, 3, 1.0, 200, seed=2)
    assert found.different <= most(200)
    assert found.covered >= least(200, COVERAGE)


def test_few_texts_make_no_claim_about_a_tone() -> None:
    with pytest.raises(ValueError, match="fewer than 24"):
        mixtures.claims("all alike", 23, 400, 4, 10, seed=2)


@pytest.mark.parametrize("name", ["4 looks, 1 text, equal weights", "4 looks, 64 texts, the first one registered"])
def test_stopping_early_makes_no_false_claim(name: str) -> None:
    rule = stopping_rules()[name]
    tally = run_stopping(rule, RUNS, seed=1)
    assert tally.worst() <= most(RUNS), dict(tally.false)


@pytest.mark.parametrize(
    "name",
    ["tones do as much as the largest format, n = 400", "a format does 25 points and no tone anything, n = 400"],
)
def test_format_noise_is_said_only_of_tones_that_are_within(name: str) -> None:
    scene, within = format_scenes()[name]
    assert all(row.holds for row in format_rows(name, scene, within, RUNS, seed=1))


def test_intervals_cover_on_a_grid() -> None:
    runs, sizes = 800, (8, 20, 128)
    for part in (coverage.discordance_cells, coverage.text_cells, coverage.accuracy_cells):
        shares = np.array([cell.covered for cell in part(runs, 2, sizes)])
        assert shares.min() >= 0.93 - 4 * np.sqrt(0.93 * 0.07 / runs)
        assert 0.93 <= shares.mean() <= 0.99


@pytest.mark.parametrize(
    ("design", "deviation"), [(PowerDesign(64, 1, 32, 32, 2), 0.3), (PowerDesign(64, 1, 1, 1, 2), 0.0)]
)
def test_a_difference_of_the_stated_size_is_seen(design: PowerDesign, deviation: float) -> None:
    for check in power_checks(RUNS, 3, [(design, deviation)]):
        assert check.seen is not None
        assert check.seen >= least(RUNS), check


def test_more_of_anything_shows_smaller_differences() -> None:
    base = Simulation(PowerDesign(64, 1, 32, 32, 4), 0.0).detectable()
    assert base is not None
    for design, deviation, smaller in (
        (PowerDesign(256, 1, 32, 32, 4), 0.0, True),
        (PowerDesign(64, 1, 64, 64, 4), 0.0, True),
        (PowerDesign(64, 4, 32, 32, 4), 0.0, True),
        (PowerDesign(64, 1, 32, 32, 1), 0.0, True),
        (PowerDesign(64, 1, 32, 32, 4, weight=0.2), 0.0, False),
        (PowerDesign(64, 1, 32, 32, 4), 0.5, False),
        (PowerDesign(64, 1, 32, 32, 4, asks=3), 0.0, True),
    ):
        found = Simulation(design, deviation).detectable()
        assert found is not None
        assert (found < base) is smaller
    assert Simulation(PowerDesign(8, 1, 8, 8, 8), 0.0).detectable() is None


def test_the_truth_of_a_scene_is_what_it_says() -> None:
    assert marginal(centre_of(0.7, 1.5), 1.5) == pytest.approx(0.7)
    scene = Scene(4000, (0.7, 0.4), 0.5, texts=400, text_deviation=0.5, cut=0.2, unmarked=0.1)
    table = simulate(scene, np.random.default_rng(0))
    shares = table.groupby("variant")["correct"].mean()
    assert shares["tone0"] - shares["filler"] == pytest.approx(scene.truth("tone0", "filler"), abs=0.04)
    assert shares["control"] == pytest.approx(scene.strict("control"), abs=0.04)


def test_copies_of_a_question_are_one_unit() -> None:
    table = simulate(Scene(32, texts=1, copies=4), np.random.default_rng(0))
    groups = Questions(table).groups
    assert groups is not None
    assert groups.tolist() == [number % 8 for number in range(32)]
    assert Questions(table.drop(columns="question")).groups is None
    # However few there are; and templates with copies among them, or too few to be units, say no less.
    few = Questions(simulate(Scene(32, texts=1, copies=16), np.random.default_rng(0))).groups
    assert few is not None
    assert set(few) == {0, 1}
    two = table.assign(group=table["sample_id"].mod(2).map("level {}".format))
    again = Questions(two).groups
    assert again is not None
    assert again.tolist() == groups.tolist()
    rows = paired_tests(table, 0.1)
    assert set(rows["unit"]) == {"groups"}
    assert set(rows["groups"].dropna()) == {8}
    limits = data_limits(two, accuracy(two), paired_tests(two, 0.1), consistency(two), None)
    (note,) = notes(limit for limit in limits if limit.kind is LimitKind.REPEATED)
    assert note.text.startswith("8 questions come under several ids (32 in all).")
    assert [limit.numbers["count"] for limit in limits if limit.kind is LimitKind.FEW_GROUPS] == [2]


def test_groups_that_all_do_the_same_do_not_exclude_another_kind_of_group() -> None:
    # A tone that breaks one kind of template in 8 spares 24 of them in 4 % of runs.
    nothing, groups = np.zeros(480), np.arange(480) % 24
    assert difference(nothing, None, None, 0.1, groups=groups, other_groups=True).high > 0.1
    assert difference(nothing, None, None, 0.1, groups=groups).high < 0.01
    found = mixtures.claims("1 in 8 breaks", 24, 480, 1, 300, 0, grouped=True)
    assert max(found.different, found.equivalent) <= most(300)
    assert found.covered >= least(300, COVERAGE)


@pytest.mark.parametrize(("groups", "others"), [(2, False), (12, False), (24, True), (None, False)])
def test_a_claim_about_other_groups_takes_24_of_them(groups: int | None, others: bool) -> None:
    table = simulate(Scene(200, texts=1, copies=2), np.random.default_rng(0))
    if groups is not None:
        number = table["question"].str.extract(r"(\d+)")[0].astype(int)
        table = table.assign(group=number.mod(groups).map("template {}".format))
    assert Questions(table).other_groups is others
    limits = data_limits(table, accuracy(table), paired_tests(table, 0.1), consistency(table), None)
    kinds = {limit.kind for limit in limits} & {LimitKind.GROUPS, LimitKind.FEW_GROUPS}
    assert kinds == (set() if groups is None else {LimitKind.GROUPS if others else LimitKind.FEW_GROUPS})


def test_what_counts_as_false() -> None:
    assert is_false("different", 0.2, 0.0)
    assert is_false("different", 0.2, -0.1)
    assert not is_false("different", 0.2, 0.01)
    assert is_false("equivalent", 0.0, 0.1)
    assert not is_false("equivalent", 0.05, 0.09)
    assert not is_false("undecided", 0.2, 0.0)
    assert LEVEL < most(400) < 2 * LEVEL


def test_a_simulation_that_is_near_the_limit_has_more_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def jobs(runs: int) -> dict[str, Any]:
        return {name: partial(rows, name, runs) for name in ("near", "far")}

    def rows(name: str, runs: int) -> list[Row]:
        return [Row("false", "different", name, runs, 0.06 if name == "near" else 0.05, most(runs))]

    monkeypatch.setattr(calibrate, "jobs", jobs)
    assert [calibrate.simulated(name, 400)[0].runs for name in ("near", "far")] == [2000, 400]


def test_what_a_file_keeps_is_not_simulated_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "kept.jsonl"
    command = ["calibrate", "--only", "guesses", "--runs", "8", "--processes", "1", "--keep", str(kept)]
    monkeypatch.setattr("sys.argv", command)
    assert calibrate.main() == 0
    first, lines = capsys.readouterr().out, kept.read_text().splitlines()
    kept.write_text("\n".join(lines[1:]) + "\n")  # as an interrupted run leaves it
    asked: list[str] = []
    run = calibrate.run

    def noted(names: list[str], runs: int, processes: int) -> Iterator[tuple[str, list[Row]]]:
        asked.extend(names)
        return run(names, runs, processes)

    monkeypatch.setattr(calibrate, "run", noted)
    assert calibrate.main() == 0
    assert [json.loads(line)["name"] for line in lines[:1]] == asked
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(first.splitlines())
    assert sorted(kept.read_text().splitlines()) == sorted(lines)
