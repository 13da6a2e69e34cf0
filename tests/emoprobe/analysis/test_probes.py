"""Probes on planted truth: nothing, a direction, a leak; what is left out, skipped and said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from emoprobe.analysis.probes.activation_source import ActivationSource
from emoprobe.analysis.probes.all_probes import Findings, run_probes
from emoprobe.report.statements.probes import statements
from emoprobe.results.catalogue import TABLES
from emoprobe.results.statement import Statement
from emoprobe.results.tables import frame
from tests.calibration import probes as calibration
from tests.calibration.allowance import most
from tests.emoprobe.analysis import synthetic


def by_target(found: Findings) -> dict[str, dict[str, object]]:
    return {str(row["target"]): row for row in found.tests}


def said(found: Findings) -> dict[str, Statement]:
    """The first statement about each target, out of tables as they are written."""
    tables = {
        name: frame(TABLES[name], rows)
        for name, rows in (("probe_tests", found.tests), ("probe_transfer", found.transfer), ("probes", found.probes))
    }
    first: dict[str, Statement] = {}
    for statement in statements(tables["probe_tests"], tables["probe_transfer"]):
        first.setdefault(statement.about, statement)
    return first


def test_what_is_not_there_is_rarely_found() -> None:
    """A few runs of every null world; no world and not all together beyond the error of so few."""
    runs, worlds = 4, [world for world in calibration.WORLDS if not world.effects and world.samples == 24]
    shares: dict[str, list[float]] = {}
    for world in worlds:
        for row in calibration.rows(world, runs):
            if row.what == "false":
                assert row.holds, row
                shares.setdefault(row.kind, []).append(row.share)
    assert set(shares) == {"valence found", "correct found", "correct_within found"}
    for kind, found in shares.items():
        assert np.mean(found) <= most(runs * len(worlds)), kind


@pytest.mark.parametrize("plant", [calibration.prompt_much_longer, calibration.drift_by_variant])
def test_what_goes_together_with_valence_cannot_be_separated_from_it(plant: Callable[[calibration.Draw], None]) -> None:
    (run,) = calibration.simulate(calibration.World(plant, 24), 1)
    test = run["valence"]
    assert (test["verdict"], test["p"]) == ("not_separable", None)
    confound = "order of capture" if plant is calibration.drift_by_variant else "words"
    assert f"{confound} at last_prompt" in test["inseparable"] or f"{confound}, " in test["inseparable"]
    (sentence,) = statements(frame(TABLES["probe_tests"], [test]), frame(TABLES["probe_transfer"], []))
    assert sentence.verdict == "not_separable"
    assert confound in sentence.text


def test_questions_that_a_variant_lacks_tell_nothing_of_valence() -> None:
    """Whatever mean each variant has there, the areas are the same."""
    settings = synthetic.config(synthetic.BALANCED, targets=["valence"])
    table = synthetic.table(settings, 24, 0)
    late = table["sample_id"] > "s_0017"
    table = table[~(late & (table["variant"] == "anger"))].reset_index(drop=True)
    missing = (table["valence"].notna() & (table["sample_id"] > "s_0017")).to_numpy()
    # In units of each feature's variance, so that standardised features are alike.
    variant, scale = pd.factorize(table["variant"])[0], np.geomspace(3.0, 0.1, 8)
    plain = synthetic.source(table, 1, 8, 0)
    tests = []
    for step in (0.0, 10.0):
        block = {
            name: values.astype(np.float32) + np.multiply.outer(step * missing * variant, scale)[:, None]
            for name, values in plain.load(0, 1, plain.hook_points[0]).items()
        }
        source = replace(plain, load=lambda *_, block=block: block)  # type: ignore[misc]
        tests.append(by_target(run_probes(table, source, settings))["valence"])
    first, second = tests
    assert first["n"] == 18 * 8
    assert second["auroc"] == pytest.approx(first["auroc"], abs=0.01)
    assert second["p"] == first["p"]


def test_a_valence_needs_questions_that_all_its_variants_have() -> None:
    settings = synthetic.config(synthetic.BALANCED, targets=["valence"])
    table = synthetic.table(settings, 24, 0)
    first, second = "anger", "fear"
    late = table["sample_id"] > "s_0011"
    gap = (late & (table["variant"] == first)) | (~late & (table["variant"] == second))
    table = table[~gap].reset_index(drop=True)
    test = by_target(run_probes(table, synthetic.source(table, 1, 8, 0), settings))["valence"]
    assert test["verdict"] == "note"
    assert "that every variant with a valence has activations of" in str(test["reason"])


def test_few_questions_with_both_outcomes_reach_no_verdict_within_questions() -> None:
    settings = synthetic.config(synthetic.BALANCED, targets=["correct"])
    table = synthetic.table(settings, 20, 0)
    mixed = table["sample_id"] < "s_0011"
    table.loc[~mixed, "correct"] = table.loc[~mixed, "sample_id"] < "s_0016"
    test = by_target(run_probes(table, synthetic.source(table, 1, 8, 0), settings))["correct_within"]
    assert test["verdict"] == "note"
    assert "11 questions with right and wrong answers; 12 are needed" in str(test["reason"])


def test_few_groups_of_questions_reach_no_verdict_on_correctness() -> None:
    settings = synthetic.config(synthetic.BALANCED, targets=["correct"])
    table = synthetic.table(settings, 40, 0)
    for groups, verdict in ((19, "note"), (20, "not_found")):
        table["group"] = [f"t{int(sample[-2:]) % groups}" for sample in table["sample_id"]]
        test = by_target(run_probes(table, synthetic.source(table, 1, 8, 0), settings))["correct"]
        assert test["verdict"] == verdict
        assert (test["reason"] is None) == (verdict != "note")


@pytest.mark.parametrize(("mixed", "least"), [(3, 4), (15, 20)])
def test_questions_with_both_outcomes_are_counted_where_there_is_no_probe(mixed: int, least: int) -> None:
    settings = synthetic.config(4, targets=["correct"], min_per_class=least)
    table = synthetic.table(settings, 30, 0)
    table["correct"] = ~((table["variant"] == "control") & (table["sample_id"] < f"s_{mixed:04d}"))
    found = said(run_probes(table, synthetic.source(table, 1, 8, 0), settings))["probe:correct_within"].text
    why = (
        "there is no probe of correctness" if mixed >= 12 else "3 questions with right and wrong answers; 12 are needed"
    )
    assert f"a verdict is not reachable ({why}" in found


@pytest.mark.parametrize("world", [w for w in calibration.WORLDS if w.effects], ids=lambda world: world.name)
def test_what_is_there_is_mostly_found(world: calibration.World) -> None:
    told = [row for row in calibration.rows(world, 5) if row.what == "told"]
    assert len(told) == len(world.effects)
    assert all(row.holds for row in told), told


def test_a_planted_valence_is_found_where_it_is() -> None:
    settings = synthetic.config(synthetic.BALANCED, targets=["valence", "variant"])
    table = synthetic.table(settings, 24, 0)
    direction = np.random.default_rng(5).normal(size=48)
    direction /= np.linalg.norm(direction)
    sign = table["valence"].map({"negative": -1.0, "positive": 1.0}).astype(float).fillna(0.0).to_numpy()

    def signal(layer: int, position: str, noise: np.ndarray) -> np.ndarray:
        planted = 4.0 * np.outer(sign, direction)
        return planted if (layer, position) == (2, "response_mean") else np.zeros_like(noise)

    found = run_probes(table, synthetic.source(table, 4, 48, 0, signal), settings)
    test = by_target(found)["valence"]
    assert test["verdict"] == "found"
    assert test["p"] == pytest.approx(1 / 20)
    assert (test["layer"], test["position"], test["agreement"]) == (2, "response_mean", 1.0)
    probes = pd.DataFrame(found.probes).query("target == 'valence'").set_index(["layer", "position"])
    assert probes.loc[(2, "response_mean"), "auroc"] > 0.9
    assert probes.drop(index=(2, "response_mean"))["auroc"].max() < 0.7
    for name, least in (("valence", 0.9), ("probe/valence", 0.5)):
        tensor = found.directions.tensors[f"{name}/input_layernorm.output/response_mean"].reshape(-1, 4, 48)
        assert float(tensor[0, 2] @ direction) > least
    assert found.directions.reference == "filler"
    assert "filler" not in found.directions.variants
    text = said(found)
    assert text["probe:valence"].verdict == "found"
    assert "layer 2, response_mean" in text["probe:valence"].text
    assert text["probe:variant"].verdict == "note"


def test_too_few_variants_reach_no_verdict() -> None:
    settings = synthetic.config(7, targets=["valence"])
    table = synthetic.table(settings, 20, 0)
    found = run_probes(table, synthetic.source(table, 1, 8, 0), settings)
    statement = said(found)["probe:valence"]
    assert statement.verdict == "note"
    assert "not reachable" in statement.text
    assert "at least 4 of each" in statement.text
    assert statement.p is None


def test_targets_with_too_few_examples_are_skipped_with_the_reason() -> None:
    settings = synthetic.config(3)
    table = synthetic.table(settings, 20, 0)
    table["correct"] = pd.array([True] * 2 + [False] * (len(table) - 2), dtype="boolean")
    found = run_probes(table, synthetic.source(table, 1, 8, 0), settings)
    skipped = {row["target"]: row["skipped"] for row in found.probes if row.get("skipped")}
    assert set(skipped) == {"correct", "valence"}
    assert "correct answers in 2 questions" in skipped["correct"]
    assert all(said(found)[f"probe:{target}"].verdict == "note" for target in skipped)


def test_the_larger_need_is_the_reason_for_no_verdict_on_correctness() -> None:
    """With as many right answers as a probe takes, eight questions would still get no verdict."""
    settings = synthetic.config(3, targets=["correct"])
    table = synthetic.table(settings, 8, 0)
    table["correct"] = pd.array([True] + [False] * (len(table) - 1), dtype="boolean")
    found = run_probes(table, synthetic.source(table, 1, 8, 0), settings)
    assert "correct answers in 1 question; " in str(found.probes[0]["skipped"])
    assert by_target(found)["correct"]["reason"] == "8 questions or groups of them; 20 are needed"


def test_intervals_need_twenty_groups() -> None:
    for samples, known in ((19, False), (20, True)):
        settings = synthetic.config(3, targets=["correct"])
        table = synthetic.table(settings, samples, 0)
        found = run_probes(table, synthetic.source(table, 1, 8, 0), settings)
        assert np.isfinite(found.probes[0]["auroc_low"]) == known
        assert np.isfinite(by_target(found)["correct"]["added_low"]) == known  # type: ignore[call-overload]


def test_stand_ins_and_rows_without_activations_are_left_out() -> None:
    settings = synthetic.config(synthetic.BALANCED)
    table = synthetic.table(settings, 20, 0)
    whole = synthetic.source(table, 2, 8, 0)
    kept = np.flatnonzero(table["sample_id"] < "s_0012")

    def load(begin: int, end: int, hook_point: str) -> dict[str, np.ndarray]:
        block = {name: values[kept] for name, values in whole.load(begin, end, hook_point).items()}
        block["last_prompt"][(table["variant"] == "control").to_numpy()[kept]] = 1e4  # a stand-in that would be seen
        return block

    control = (table["variant"] == "control").to_numpy()[kept]
    empty = {"last_prompt": control, "response_mean": np.zeros(len(kept), dtype=bool)}
    source = ActivationSource(kept, whole.layers, whole.hook_points, whole.positions, whole.d, load, empty)
    found = run_probes(table, source, settings)
    rows = pd.DataFrame(found.probes)
    counts = rows[rows["target"] == "variant"].groupby("position")["n"].first()
    assert counts.to_dict() == {"last_prompt": 9 * 12, "response_mean": 10 * 12}
    assert found.directions.tensors["norm/input_layernorm.output/last_prompt"].max() < 100
    plane = pd.DataFrame(found.directions.plane)
    assert "control" not in set(plane.loc[plane["position"] == "last_prompt", "variant"])
    analysis = settings.analysis.model_copy(update={"references": ["control"]})
    by_control = settings.model_copy(update={"analysis": analysis})
    cosines = pd.DataFrame(run_probes(table, source, by_control, transfers=False).directions.cosines)
    assert set(cosines["position"]) == {"response_mean"}


def test_transfer_rows_say_what_was_held_out() -> None:
    settings = synthetic.config(synthetic.BALANCED)
    table = synthetic.table(settings, 20, 0)
    rows = pd.DataFrame(run_probes(table, synthetic.source(table, 1, 16, 0), settings).transfer)
    assert set(rows["kind"]) == {"position", "text", "variant"}
    assert set(rows.loc[rows["kind"] == "text", "train"]) == {"text 0", "text 1"}
    assert set(rows.loc[rows["kind"] == "position", "train"]) == {"last_prompt", "response_mean"}
    own = rows[(rows["kind"] == "variant") & (rows["target"] == "valence")]
    assert set(own["train"]) == set(synthetic.BALANCED) - {"control", "filler"}
    assert len(frame(TABLES["probe_transfer"], rows.to_dict("records"))) == len(rows)


def test_selectivity_needs_variants_with_several_texts() -> None:
    settings = synthetic.config(4, targets=["variant"])
    table = synthetic.table(settings, 20, 0)
    source = synthetic.source(table, 1, 8, 0)
    assert all(np.isfinite(row["selectivity"]) for row in run_probes(table, source, settings).probes)
    table["paraphrase"] = pd.array([0] * len(table), dtype="Int64")
    assert all(row["selectivity"] is None for row in run_probes(table, source, settings).probes)


def test_several_draws_of_a_question_stay_together() -> None:
    settings = synthetic.config(synthetic.BALANCED)
    table = pd.concat([synthetic.table(settings, 12, 0).assign(draw=draw) for draw in (1, 2)], ignore_index=True)
    found = run_probes(table, synthetic.source(table, 1, 8, 0), settings)
    assert by_target(found)["correct"]["units"] == 12
    assert by_target(found)["valence"]["n"] == 2 * 12 * 8


def test_a_question_under_two_ids_is_one() -> None:
    """Otherwise a probe that was trained on one of the copies would know the answer to the other."""
    settings = synthetic.config(4, targets=["correct"])
    table = synthetic.table(settings, 60, 0)
    asked = (table["sample_id"].str[2:].astype(int) // 2).to_numpy()
    generator = np.random.default_rng(0)
    right, places = generator.random(30) < 0.5, 2 * generator.normal(size=(30, 64))
    table["question"] = pd.array([f"question {'x' * number}" for number in asked], dtype="string")
    table["correct"] = pd.array(right[asked], dtype="boolean")
    source = synthetic.source(table, 1, 64, 0, lambda *_: places[asked], ("last_prompt",))
    test = by_target(run_probes(table, source, settings))["correct"]
    assert test["units"] == 30
    assert test["verdict"] == "not_found"
