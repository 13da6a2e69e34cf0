"""Tests and sentences on p(gold): families of its own, few texts, margins, missing values, the plan."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from emoprobe.analysis.behaviour import accuracy, consistency, outcome_means
from emoprobe.analysis.outcomes import ACCURACY, P_GOLD, Outcome, outcomes_of
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.analysis.preregistration import analysis_plan, deviations
from emoprobe.config.files import parse_config
from emoprobe.report import front
from emoprobe.report.closing import summary_text
from emoprobe.report.figures import EMPTY, FIGURES
from emoprobe.report.figures.view import ExperimentView
from emoprobe.report.statements.behaviour import comparisons
from emoprobe.report.summary import report
from emoprobe.results import atomic
from emoprobe.results.layout import Layout
from emoprobe.results.preregistration import Preregistration
from emoprobe.results.statement import Statement
from emoprobe.results.tables import read_table, write_table
from tests.calibration import preferences, types
from tests.calibration.trajectories import Scene, simulate
from tests.judges import judge

MARGIN = 0.1
OUTCOMES = [ACCURACY, P_GOLD]


def measured(questions: int = 64, texts: int = 64, shift: float = 0.1) -> pd.DataFrame:
    """Trajectories whose p(gold) the first tone raises, and accuracy does not."""
    table = simulate(Scene(questions, texts=texts), np.random.default_rng(0))
    generator = np.random.default_rng(1)
    ease = table["sample_id"].map(dict(enumerate(generator.uniform(0.1, 0.6, questions)))).astype(float)
    table["p_gold"] = ease + shift * (table["variant"] == "tone0") + generator.normal(0, 0.02, len(table))
    return table


def test_p_gold_is_tested_for_every_contrast_in_families_of_its_own() -> None:
    table = measured()
    alone = paired_tests(table, MARGIN)
    tests = paired_tests(table, MARGIN, outcomes=OUTCOMES)
    # What is said of accuracies does not change.
    pd.testing.assert_frame_equal(tests[tests["measure"] != "p_gold"], alone)
    own = tests[tests["measure"] == "p_gold"].set_index(["variant", "reference"])
    assert set(own["family"]) == {"logprob_planned", "logprob_primary", "logprob_secondary"}
    primary = own[own["family"] == "logprob_primary"]
    assert len(primary) == 4
    assert primary["p_holm"].min() == pytest.approx(4 * primary["p"].min())
    assert own[["both", "gained", "lost", "neither", "p_equivalent"]].isna().all(axis=None)
    (row,) = own.loc[[("tone0", "filler")]].to_dict("records")
    assert row["low"] < 0.1 < row["high"] < 0.15
    said = {one.about: one for one in comparisons(tests, None, "p_gold")}
    assert said["p_gold:tone0-filler"].verdict == "different"
    assert "raises p(gold) compared with filler (+" in said["p_gold:tone0-filler"].text
    assert "points of probability [" in said["p_gold:tone0-filler"].text
    assert said["p_gold:tone1-filler"].verdict == "undecided"
    assert said["p_gold:negative-positive"].text.startswith("Planned: these negative tones raise p(gold)")
    assert said["p_gold:tone0-control"].text.startswith("Secondary: tone0")


def test_few_texts_speak_for_themselves_alone() -> None:
    tests = paired_tests(measured(texts=8), MARGIN, outcomes=OUTCOMES)
    said = {one.about: one for one in comparisons(tests, None, "p_gold")}
    assert said["p_gold:tone0-filler"].verdict == "different_here"
    assert said["p_gold:tone0-filler"].text.startswith("These 8 texts of tone0 raise p(gold)")


@pytest.mark.parametrize(("margin", "verdict"), [(None, "undecided"), (0.05, "equivalent"), (0.001, "undecided")])
def test_equivalence_takes_a_margin_of_its_own(margin: float | None, verdict: str) -> None:
    tests = paired_tests(measured(256, 256), MARGIN, outcomes=[ACCURACY, replace(P_GOLD, margin=margin)])
    (said,) = (one for one in comparisons(tests, margin, "p_gold") if one.about == "p_gold:tone1-filler")
    assert said.verdict == verdict
    assert ("within 5 points of probability" in said.text) is (verdict == "equivalent")


def test_values_that_are_missing_widen_the_interval_to_every_completion() -> None:
    whole, part = measured(), measured()
    lacking = (part["variant"] == "tone0") & (part["sample_id"] < 6)
    part.loc[lacking, "p_gold"] = np.nan
    rows = [
        paired_tests(table, MARGIN, outcomes=OUTCOMES).query("measure == 'p_gold'").set_index("variant")
        for table in (whole, part)
    ]
    (complete, missing) = (row[row["reference"] == "filler"].loc["tone0"] for row in rows)
    assert (complete["missing"], missing["missing"]) == (0, 6)
    assert (complete["verdict"], missing["verdict"]) == ("different", "undecided")
    assert missing["low"] < 0 < complete["low"]


def test_nothing_measured_is_nothing_tested() -> None:
    table = measured()
    table["p_gold"] = np.nan
    said = comparisons(paired_tests(table, MARGIN, outcomes=OUTCOMES), None, "p_gold")
    assert {one.verdict for one in said} == {"undecided"}
    assert all("no interval" in one.text for one in said)


def config(**sections: Any) -> Any:
    texts = [f"text {number}" for number in range(8)]
    return parse_config({"variants": {"control": {}, "filler": {"texts": texts}, "joy": {"texts": texts}}, **sections})


def test_the_plan_registers_graders_and_names_what_deviates() -> None:
    plain, planned = config(), config(graders=["number", "logprob"])
    older, plan = (
        Preregistration.model_validate_json(json.dumps(analysis_plan(one).values())) for one in (plain, planned)
    )
    assert not {"graders", "outcomes"} & older.values().keys()
    assert plan.graders == ["number", "logprob"]
    assert plan.outcomes == {"logprob": {"lead": "Answer:", "gold": [" {answer}"], "margin": None}}
    assert deviations(older, plain) == deviations(plan, planned) == []
    # A guess of the variant, which a leaning may ask for, is no outcome.
    guessed = config(graders=["number", judge(rubric="guess")])
    assert deviations(older, guessed) == []
    assert any("graders changed" in phrase for phrase in deviations(older, planned))
    assert any("graders changed" in phrase for phrase in deviations(plan, plain))
    for key, value in (("lead", ""), ("gold", ["{answer}"]), ("margin", 0.01)):
        other = config(graders=["number", {"name": "logprob", key: value}])
        assert any("outcomes besides accuracy changed" in phrase for phrase in deviations(plan, other)), key


def test_the_primary_grader_comes_first_in_the_report(tmp_path: Path) -> None:
    layout, table = Layout(tmp_path), measured()
    table["sample_id"] = table["sample_id"].astype("string")
    table["completion"] = "Answer: 5"
    tables = {
        "trajectories": table,
        "accuracy": accuracy(table),
        "paired_tests": paired_tests(table, MARGIN, outcomes=OUTCOMES),
        "consistency": consistency(table),
        "workers": table.iloc[:0][["variant"]],
    }
    layout.table("accuracy").parent.mkdir(parents=True)
    for name, content in tables.items():
        content.to_parquet(layout.table(name))
    for graders, first in ((["number", "logprob"], "accuracy"), (["logprob", "number"], "p_gold")):
        found = report(config(graders=graders), layout)
        abouts = [entry["about"] for entry in found["statements"]]
        contrasts = [about.split(":")[0] for about in abouts if about.startswith(("accuracy:", "p_gold:"))]
        # Planned and primary contrasts of each grader, then what is secondary.
        assert [name for name, _ in zip(contrasts, range(10), strict=False)] == [first] * 5 + [
            "p_gold" if first == "accuracy" else "accuracy"
        ] * 5
    atomic.write_json(layout.report, found)
    text = " ".join(summary_text(layout.report).split())
    assert "different: Tone0 raises p(gold)" in text
    assert "Secondary: whether" not in text  # undecided secondary comparisons of both graders are counted


def typed(world: types.World, seed: int = 0) -> tuple[pd.DataFrame, list[Statement]]:
    """Tests of one simulated table, and what is said of them."""
    outcome = types.outcome_of(world)
    table = types.simulate(world, np.random.default_rng(seed))
    tests = paired_tests(table, MARGIN, ["filler"], outcomes=[outcome])
    return tests, comparisons(tests, outcome.margin, types.COLUMN)


def test_categories_are_one_family_and_one_sentence_for_each_contrast() -> None:
    tests, said = typed(types.World("category", 192, shift=2.0))
    assert set(tests["family"]) == {"x_primary"}
    assert len(tests) == 4 * len(types.CATEGORIES)
    assert tests["p_holm"].min() == pytest.approx(len(tests) * tests["p"].min())
    assert [one.about for one in said] == [f"outcome_x:tone{number}-filler" for number in range(4)]
    first = said[0]
    assert first.verdict == "different"
    assert first.text.startswith("Tone0 changes the distribution of x compared with filler (“a” +")
    assert {one.verdict for one in said[1:]} == {"undecided"}
    assert "whether tone1 and filler differ in the distribution of x is undecided" in said[1].text.lower()
    alike, same = typed(types.World("category", 1600, tones=1, texts=1))
    assert same[0].verdict == "equivalent_here"
    assert "are equivalent in the distribution of x, every share within 10 points either way" in same[0].text
    # The one sentence has the numbers of the category that its verdict follows from.
    assert same[0].p == pytest.approx(alike["p_equivalent_holm"].max(), abs=1e-6)


def test_a_number_has_no_unit_and_a_margin_of_its_own() -> None:
    _, said = typed(types.World("number", 192, shift=0.6, margin=12.0))
    assert said[0].verdict == "different"
    assert said[0].text.startswith("Tone0 raises mean x compared with filler (+1")
    assert "points" not in said[0].text
    assert "are equivalent in mean x, within 12 either way" in said[1].text
    _, without = typed(types.World("number", 192, shift=0.6))
    assert without[1].verdict == "undecided"


def test_the_figure_of_outcomes_has_a_panel_for_each_outcome_but_accuracy(tmp_path: Path) -> None:
    world = types.World("category", 48)
    table = types.simulate(world, np.random.default_rng(0)).assign(correct=True, outcome_y=1.5)
    there = [ACCURACY, types.outcome_of(world), Outcome("y", "outcome_y", "number")]
    layout = Layout(tmp_path)
    write_table(layout, "outcomes", outcome_means(table, there))
    means = read_table(tmp_path, "outcomes")
    assert set(means["measure"]) == {"correct", "outcome_y", *(f"outcome_x={one}" for one in types.CATEGORIES)}
    axes = FIGURES["outcomes"].draw(ExperimentView(layout, config())).axes
    assert [axis.get_xlabel() for axis in axes] == [
        f"{one} with 95 % interval" for one in ("the shares of x", "mean y")
    ]
    variants = table["variant"].nunique()
    assert [len(axis.get_yticks()) for axis in axes] == [variants * len(types.CATEGORIES), variants]
    write_table(layout, "outcomes", outcome_means(table, [ACCURACY]))
    (alone,) = FIGURES["outcomes"].draw(ExperimentView(layout, config())).axes
    assert [text.get_gid() for text in alone.texts] == [EMPTY]


def test_a_rate_is_tested_as_accuracies_are() -> None:
    world = types.World("binary", 192, shift=1.5)
    tests, said = typed(world)
    table = types.simulate(world, np.random.default_rng(0))
    table = table.assign(correct=table[types.COLUMN], lenient=table[types.COLUMN], truncated=False)
    accuracies = paired_tests(table, MARGIN, ["filler"]).query("measure == 'correct'")
    same = ["n", "difference", "low", "high", "p", "p_holm", "p_equivalent", "gained", "lost", "verdict"]
    pd.testing.assert_frame_equal(tests[same].reset_index(drop=True), accuracies[same].reset_index(drop=True))
    assert said[0].text.startswith("Tone0 raises the rate of x compared with filler (+")


def test_missing_numbers_are_tested_only_where_their_range_is_known() -> None:
    unknown, said = typed(types.World("number", 96, missing=0.1))
    assert not unknown.iloc[0]["tested"]
    assert (said[0].verdict, said[1].verdict) == ("note", "undecided")
    assert "values are missing of a number without range" in said[0].text
    known, _ = typed(types.World("number", 96, missing=0.1, shape="polarity"))
    complete, _ = typed(types.World("number", 96, shape="polarity"))
    (wide, narrow) = (one.iloc[0]["high"] - one.iloc[0]["low"] for one in (known, complete))
    assert known.iloc[0]["tested"]
    assert wide > narrow + 0.1


def test_a_preference_alone_fills_the_front_and_the_figures(tmp_path: Path) -> None:
    settings = parse_config(
        {
            "variants": {"filler": {}, "control": {}, "tone0": {"text": "Hurray!"}, "tone1": {"text": "Alas!"}},
            "graders": [judge(label="x", compare_with="filler")],
            "analysis": {"references": ["filler"]},
        }
    )
    world = preferences.World(shift=2.0, texts=1, position=0.2)
    table = preferences.simulate(world, np.random.default_rng(0)).assign(correct=None, completion="Five.")
    table["sample_id"] = table["sample_id"].astype("string")
    (outcome,) = outcomes_of(settings)
    layout = Layout(tmp_path)
    write_table(layout, "outcomes", outcome_means(table, [outcome]))
    write_table(layout, "paired_tests", paired_tests(table, MARGIN, ["filler"], outcomes=[outcome]))
    layout.table("trajectories").parent.mkdir(parents=True, exist_ok=True)
    for name, content in (
        ("trajectories", table),
        ("accuracy", accuracy(table)),
        ("consistency", consistency(table)),
        ("workers", table.iloc[:0][["variant"]]),
    ):
        content.to_parquet(layout.table(name))
    found = report(settings, layout)
    said = {entry["about"]: entry for entry in found["statements"]}
    assert said["outcome_x:tone0-filler"]["verdict"] == "note"
    assert said["outcome_x:tone0-filler"]["text"].startswith(
        "As judged by judge-x (x), answers with this text of tone0"
    )
    first, *_ = rows = front.comparisons(settings, found)
    assert [row.name for row in rows] == ["tone0", "tone1"]
    assert (first.level, first.unit, first.reference_share) == ("Share", "points", "")
    mean = next(row["mean"] for row in found["outcomes"] if row["variant"] == "tone0")
    assert first.share == f"{mean:.1%}"
    assert first.difference == f"{100 * (2 * mean - 1):+.1f}"
    assert "in the share of preferred answers (x) as judged by judge-x (x)" in " ".join(front.answer(found, None))
    view = ExperimentView(layout, settings)
    (axis,) = FIGURES["outcomes"].draw(view).axes
    assert axis.get_xlabel() == "the share of preferred answers (x) as judged by judge-x (x) with 95 % interval"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["tone0", "tone1"]
    (axis,) = FIGURES["paired_differences"].draw(view).axes
    assert axis.get_xlabel().startswith("difference of the share of preferred answers (x) as judged by judge-x (x)")
