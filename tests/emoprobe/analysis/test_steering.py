"""What steering did: effects, ranks among random directions, coherence, mediation, and what is said of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from emoprobe.analysis.preregistration import analysis_plan, deviations
from emoprobe.analysis.steering.direction_ranking import rank
from emoprobe.analysis.steering.direction_tests import candidates
from emoprobe.analysis.steering.effect_grid import EffectGrid, Limits, SteeringCell, coherent, unbroken, within
from emoprobe.analysis.steering.preregistration import MIN_CONTROLS, controls_needed, planned_tests
from emoprobe.analysis.steering.tables import analyze, steering_tests
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.report.statements.steering import statements
from emoprobe.results.catalogue import TABLES
from emoprobe.results.tables import frame
from emoprobe.steering.grid import LEAST_TEXTS
from tests.calibration.allowance import least, most
from tests.calibration.steering import LIMITS, PLAIN, WORLDS, World, beyond_shuffled, draw, run, table

RUNS = 12
# Of the worlds' tones, as many as a verdict takes.
TEXTS = {f"tone{number}": LEAST_TEXTS for number in range(4)}
NAMES = ("plain", "heavy tails, few questions for controls", "large doses break the text, and harm")


@pytest.mark.parametrize("name", NAMES)
def test_few_directions_are_found_that_do_nothing_special(name: str) -> None:
    tally = run(next(world for world in WORLDS if world.name == name), RUNS, seed=1)
    assert tally.false / RUNS <= most(RUNS)
    assert tally.intervals.share >= 0.9
    assert tally.chosen.share >= 0.9
    assert tally.told / tally.planted >= least(tally.planted)


def planted(world: World, effect: float, seed: int = 3) -> pd.DataFrame:
    """A world in which the first tone has an effect at dose 0.5 of layer 1."""
    generator = np.random.default_rng(seed)
    drawn = draw(world, generator)
    drawn.plant(1, world.doses.index(0.5), effect)
    return table(world, drawn, generator)


def empty_tests() -> pd.DataFrame:
    return pd.DataFrame(columns=["variant", "reference", "measure", "verdict"])


def analyzed(steered: pd.DataFrame, limits: Limits = LIMITS) -> dict[str, pd.DataFrame]:
    trajectories = steered[steered["family"] == "none"].assign(paraphrase=pd.array([None], dtype="Int64")[0])
    return analyze(steered, limits, TEXTS, trajectories, empty_tests())


def test_a_planted_effect_is_found_where_it_is() -> None:
    found = analyzed(planted(PLAIN, -3.0))
    test = found["steering_tests"].set_index("direction").loc["tone0"]
    assert (test["verdict"], test["layers"], test["dose"]) == ("found", "1", 0.5)
    assert test["low"] < -3.0 < test["high"] < 0
    assert test["p"] == pytest.approx(1 / 40)
    assert test["p_holm"] == pytest.approx(2 / 40)
    assert found["steering_tests"].set_index("direction").loc["tone1", "verdict"] == "not_found"
    effects = found["steering_effects"]
    cell = effects[(effects["direction"] == "tone0") & (effects["layers"] == "1") & (effects["dose"] == 0.5)]
    row = cell.set_index("outcome").loc["log_p_gold"]
    assert row["estimate"] < row["control_low"]
    assert row["p_corrected"] == pytest.approx(1 / 40)
    assert effects.loc[effects["family"] == "random", "p"].isna().all()
    said = statements(found["steering_tests"], found["steering_mediation"])
    assert [one.verdict for one in said] == ["found", "not_found"]
    assert said[0].text.startswith("Steering along tone0 (a direction from a file) lowers")
    assert "None of 39 random directions of the same norm reach as far" in said[0].text
    assert "would have been found with 80 %" in said[1].text


def test_what_is_not_coherent_is_not_found() -> None:
    steered = planted(PLAIN, -3.0)
    broken = (steered["direction"] == "tone0") & (steered["layers"] == "1") & (steered["dose"] == 0.5)
    steered.loc[broken, "perplexity"] *= 3
    test = steering_tests(steered, LIMITS, TEXTS).set_index("direction").loc["tone0"]
    assert (test["layers"], test["dose"]) != ("1", 0.5)
    assert test["cells"] == 6  # neither that dose nor the larger one
    steered["perplexity"] *= np.where(steered["family"] == "none", 1.0, 9.0)
    test = steering_tests(steered, LIMITS, TEXTS).iloc[0]
    assert (test["verdict"], test["reason"]) == ("note", "the text is not coherent at any dose")
    (said, _) = statements(steering_tests(steered, LIMITS, TEXTS), analyzed(steered)["steering_mediation"])
    assert "not reachable" in said.text


def test_a_direction_without_any_effect_is_told_at_a_dose_with_coherent_text() -> None:
    """Such as one whose doses are lost in the rounding of activations until they break the text."""
    steered = planted(PLAIN, 0.0)
    mine, large = steered["direction"] == "tone0", steered["dose"].abs() == 1.0
    keys, outcomes = ["variant", "sample_id", "draw"], ["log_p_gold", "perplexity", "repetition"]
    plain = steered[steered["family"] == "none"].set_index(keys)[outcomes]
    small = steered[mine & ~large]
    steered.loc[small.index, outcomes] = plain.loc[pd.MultiIndex.from_frame(small[keys])].to_numpy()
    steered.loc[mine & large, "perplexity"] *= 100
    found = analyzed(steered)
    test = found["steering_tests"].set_index("direction").loc["tone0"]
    assert (test["cells"], test["estimate"], test["verdict"]) == (4, 0.0, "not_found")
    assert abs(test["dose"]) == 0.5


def test_too_few_controls_reach_no_verdict() -> None:
    steered = planted(PLAIN, -3.0)
    few = steered[~steered["direction"].isin(["random-000", "random-001"])]
    test = steering_tests(few, LIMITS, TEXTS).iloc[0]
    assert (test["verdict"], test["controls"]) == ("note", 37)
    assert "39 random directions are needed, 37" in test["reason"]
    none = steered[steered["family"] != "random"]
    assert steering_tests(none, LIMITS, TEXTS)["reason"].iloc[0] == "no random direction ran the same grid"
    said = statements(steering_tests(none, LIMITS, TEXTS), analyzed(none)["steering_mediation"])
    assert {one.verdict for one in said} == {"note"}


def test_the_correction_takes_more_controls_for_more_directions() -> None:
    assert [controls_needed(count) for count in (1, 2, 3, 4)] == [MIN_CONTROLS, 39, 59, 79]
    test = steering_tests(planted(World("three", tones=3), -3.0), LIMITS, TEXTS).iloc[0]
    assert test["verdict"] == "note"
    assert test["p_holm"] == pytest.approx(3 / 40)


def test_a_tone_has_to_stand_out_among_shuffled_labels_too() -> None:
    world = World("shuffled", shuffled=20)
    generator = np.random.default_rng(3)
    drawn = draw(world, generator)
    drawn.plant(1, 2, -3.0)
    found = analyzed(table(world, drawn, generator))
    test = found["steering_tests"].iloc[0]
    assert (test["verdict"], test["shuffled"], test["shuffled_needed"]) == ("found", 40, 39)
    assert (test["p_random"], test["p_shuffled"], test["p"]) == pytest.approx((1 / 40, 1 / 41, 1 / 40))
    said, _ = statements(found["steering_tests"], found["steering_mediation"])
    assert "None of 39 random directions of the same norm and none of 40 shuffled-label ones reach" in said.text
    drawn.changes[drawn.names.index("shuffled-tone1-01"), 1, 2] -= 4.0
    found = analyzed(table(world, drawn, generator))
    test = found["steering_tests"].iloc[0]
    assert (test["verdict"], test["p_random"]) == ("not_found", pytest.approx(1 / 40))
    assert (test["p_shuffled"], test["p"]) == pytest.approx((2 / 41, 2 / 41))


def test_too_few_shuffled_labels_reach_no_verdict() -> None:
    world = World("few shuffled", shuffled=2)
    generator = np.random.default_rng(3)
    test = steering_tests(table(world, draw(world, generator), generator), LIMITS, TEXTS).iloc[0]
    assert (test["verdict"], test["reason"]) == (
        "note",
        "39 shuffled-label directions are needed, 4 ran the same grid",
    )


def test_a_direction_of_a_few_texts_reaches_no_verdict_and_eases_no_other() -> None:
    world = World("few texts", shuffled=20)
    generator = np.random.default_rng(3)
    drawn = draw(world, generator)
    drawn.plant(1, 2, -3.0)
    steered = table(world, drawn, generator)
    few, other = steering_tests(steered, LIMITS, TEXTS | {"tone0": 23}).to_dict("records")
    assert (few["verdict"], few["texts"], few["texts_needed"]) == ("note", 23, 24)
    assert few["reason"] == "it takes 24 texts to fit on, and the questions of the fitting half have 23"
    assert few["p"] == pytest.approx(1 / 40)
    assert (few["p_holm"], other["p_holm"]) == (1.0, pytest.approx(min(1.0, 2 * other["p"])))
    unknown = steering_tests(steered, LIMITS, {}).iloc[0]
    assert (unknown["verdict"], unknown["texts"]) == ("note", 0)
    assert "it is not known" in unknown["reason"]


def test_a_probe_has_no_controls_of_its_kind() -> None:
    world = World("probe", tones=1, shuffled=20)
    generator = np.random.default_rng(3)
    drawn = draw(world, generator)
    drawn.plant(1, 2, -3.0)
    steered = table(world, drawn, generator)
    assert steering_tests(steered, LIMITS, TEXTS)["verdict"].tolist() == ["found"]
    steered["family"] = steered["family"].replace("tone", "probe")
    test = steering_tests(steered, LIMITS, TEXTS).iloc[0]
    assert test["verdict"] == "note"
    assert "no controls are fitted as a probe is" in test["reason"]


def test_only_the_questions_of_the_controls_are_ranked() -> None:
    """An effect on questions that no control was asked is estimated, and not ranked."""
    world = World("few", questions=40, control_questions=12)
    generator = np.random.default_rng(5)
    drawn = draw(world, generator)
    drawn.changes[0, :, :, 12:] -= 20.0
    found = steering_tests(table(world, drawn, generator), LIMITS, TEXTS).iloc[0]
    assert found["questions"] == 12
    assert found["n"] == 40
    assert found["verdict"] == "not_found"
    assert found["estimate"] < -10


def test_copies_of_a_question_are_one_unit() -> None:
    generator = np.random.default_rng(3)
    once = table(PLAIN, draw(PLAIN, generator), generator).assign(question=lambda rows: rows["sample_id"])
    twice = pd.concat([once, once.assign(sample_id=once["sample_id"] + "_again")], ignore_index=True)
    single, double = (steering_tests(each, LIMITS, TEXTS) for each in (once, twice))
    assert double["estimate"].tolist() == pytest.approx(single["estimate"].tolist())
    widths = [(found["high"] - found["low"]).to_numpy() for found in (single, double)]
    assert (widths[1] >= widths[0] - 1e-9).all()


def test_a_direction_without_p_is_not_told_as_part_of_the_correction() -> None:
    generator = np.random.default_rng(3)
    found = steering_tests(table(PLAIN, draw(PLAIN, generator), generator), LIMITS, TEXTS)
    mediation = frame(TABLES["steering_mediation"], [])
    assert all("corrected over 2 directions" in one.text for one in statements(found, mediation))
    found.loc[1, ["estimate", "p", "p_holm"]] = np.nan
    assert "corrected over" not in statements(found, mediation)[0].text


def test_the_rank_does_not_depend_on_which_direction_is_asked() -> None:
    """Any random direction in place of the tone has the rank that it should have: together they are all ranks."""
    world = World("one", tones=1, random=39)
    generator = np.random.default_rng(7)
    drawn = draw(world, generator)
    steered = table(world, drawn, generator)
    ranks = []
    for name in drawn.names:
        swapped = {name: "tone0", "tone0": name}
        renamed = steered.assign(direction=steered["direction"].map(lambda own: swapped.get(own, own)))  # noqa: B023
        own = renamed["direction"] == "tone0"
        family = np.where(own, "file", np.where(renamed["family"] == "none", "none", "random"))
        grid = EffectGrid(renamed.assign(family=family, tone=None))
        ranking = rank(grid, candidates(grid)[0], LIMITS)
        ranks.append(ranking.p(float(ranking.largest[0])))
    assert sorted(ranks) == pytest.approx(np.arange(1, 41) / 40)


def place(dose: float, layers: str = "1") -> SteeringCell:
    return SteeringCell("add", "all", layers, dose, "control")


def test_coherence_ends_at_the_first_dose_that_breaks_the_text() -> None:
    places = [place(dose) for dose in (-1.0, 0.5, 1.0, 2.0)] + [place(2.0, "2")]
    flags = np.array([True, True, False, True, True])
    assert unbroken(places, flags).tolist() == [True, True, False, False, True]


def test_what_counts_as_coherent() -> None:
    asked = np.ones((4, 10), dtype=bool)
    ratio = np.full((4, 10), np.log(1.9))
    ratio[1] = np.log(2.1)
    ratio[3, :2] = np.nan  # two texts of ten are empty
    repetition = np.zeros((4, 10))
    repetition[2] = 0.2
    assert within(ratio, repetition, asked, LIMITS).tolist() == [True, False, False, False]


def test_without_perplexities_nothing_is_known_to_be_coherent() -> None:
    steered = planted(PLAIN, -3.0).assign(perplexity=np.nan)
    assert not coherent(EffectGrid(steered), LIMITS).any()


def mediated(
    share: float, reference_too: bool, verdict: str = "different", shift: float = -2.0, ablated: float = 1.5
) -> dict[str, Any]:
    """The row of log p(gold) where ablation takes a share of a tone's effect, and 0.5 nats anywhere."""
    generator = np.random.default_rng(2)
    rows: list[dict[str, Any]] = []
    for number in range(32):
        base = generator.normal(-3, 1)
        effect = shift + generator.normal(0, 0.3)
        cells = [("none", "filler", base), ("none", "anger", base + effect)]
        cells.append(("anger", "anger", base + (1 - share) * effect - 0.5 + generator.normal(0, 0.1)))
        if reference_too:
            cells.append(("anger", "filler", base - 0.5))
        for direction, variant, value in cells:
            bare = direction == "none"
            rows.append(
                {
                    "direction": direction, "family": "none" if bare else "tone", "tone": None if bare else "anger",
                    "operation": None if bare else "ablate", "phase": None if bare else "all",
                    "layers": None if bare else "3", "dose": 0.0 if bare else 1.0, "variant": variant,
                    "sample_id": f"q_{number:02d}", "draw": 1, "group": None, "correct": True, "log_p_gold": value,
                    "completion_tokens": 9, "repetition": 0.0, "perplexity": 1.5 if bare else ablated, "kl": 0.1,
                }
            )  # fmt: skip
    steered = pd.DataFrame(rows).astype({"correct": "boolean", "completion_tokens": "Int64"})
    trajectories = steered[steered["family"] == "none"].copy()
    texts = trajectories["sample_id"].str[2:].astype(int) % 8
    trajectories["paraphrase"] = texts.astype("Int64")
    tests = pd.DataFrame([{"variant": "anger", "reference": "filler", "measure": "correct", "verdict": verdict}])
    found = analyze(steered, LIMITS, {}, trajectories, tests)
    (row,) = found["steering_mediation"].query("outcome == 'log_p_gold'").to_dict("records")
    said = statements(found["steering_tests"], found["steering_mediation"])
    assert said[0].text.startswith("Steering along anger") or said[0].verdict == "note"
    return {str(key): value for key, value in row.items()} | {"text": said[-1].text}


def test_ablation_takes_away_what_the_direction_carries() -> None:
    row = mediated(0.75, reference_too=True)
    assert row["unit"] == "texts"
    assert row["low"] < 1.5 < row["high"]
    assert row["low"] > 1.0
    assert row["share_low"] < 0.75 < row["share_high"]
    assert row["share"] == pytest.approx(0.75, abs=0.05)
    assert row["effect_high"] < 0
    assert "in both" in row["text"]
    assert row["coherent"]
    assert "not coherent" not in row["text"]


def test_an_ablation_that_breaks_the_text_is_told() -> None:
    row = mediated(0.75, reference_too=True, ablated=9.0)
    assert not row["coherent"]
    assert "Under the ablation the text is not coherent" in row["text"]


def test_without_the_reference_ablation_itself_is_in_the_change() -> None:
    row = mediated(0.75, reference_too=False)
    assert not row["reference_ablated"]
    assert row["change"] == pytest.approx(1.0, abs=0.1)


def test_a_share_is_told_of_a_tone_that_differs_alone() -> None:
    assert np.isnan(mediated(0.75, reference_too=True, verdict="undecided")["share"])
    none = mediated(0.75, reference_too=True, shift=0.0)
    assert np.isnan(none["share"])
    assert "No share is given" in none["text"]


def test_nothing_but_unsteered_trajectories_gives_empty_tables() -> None:
    steered = planted(PLAIN, -3.0)
    found = analyzed(steered[steered["family"] == "none"])
    assert all(table.empty for table in found.values())


def test_the_plan_says_what_a_verdict_takes() -> None:
    assert planned_tests(Config()) is None
    tones = {name: {"texts": ["Hm."], "valence": "negative"} for name in ("anger", "fear", "sorrow")}
    settings = {"variants": {"control": {}, **tones}, "steering": {"enabled": True}}
    planned = planned_tests(parse_config(settings))
    assert planned is not None
    assert (planned.directions, planned.reachable) == ({"tone": 3}, {"tone": False})
    assert (planned.controls_needed, planned.random_directions) == ({"tone": 59}, 39)
    assert (planned.shuffled_needed, planned.shuffled_directions) == ({"tone": 59}, 60)
    assert planned.texts_needed == LEAST_TEXTS
    with_random = settings | {"steering": {"enabled": True, "controls": {"random": 59}}}
    enough = planned_tests(parse_config(with_random))
    assert enough is not None
    assert enough.reachable == {"tone": True}
    fewer = with_random | {"steering": {"enabled": True, "controls": {"random": 59, "shuffled": 19}}}
    unreachable = planned_tests(parse_config(fewer))
    assert unreachable is not None
    assert unreachable.reachable == {"tone": False}
    plan = analysis_plan(parse_config(settings), steering=planned.values())
    assert deviations(plan, parse_config(settings)) == []
    earlier = {name: value for name, value in planned.values().items() if name != "texts_needed"}
    assert deviations(analysis_plan(parse_config(settings), steering=earlier), parse_config(settings)) == []
    other = parse_config(settings | {"steering": {"enabled": True, "coherence": {"max_perplexity": 9.0}}})
    changed = deviations(plan, other)
    assert "steering.coherence.max_perplexity changed from 2.0 to 9.0" in changed
    assert any("the directions that are steered along" in phrase for phrase in changed)


def test_few_texts_exceed_their_shuffled_labels_by_chance() -> None:
    """The figures beside `LEAST_TEXTS`."""
    shares = {texts: beyond_shuffled(texts, 4000, seed=0) for texts in (4, 8, LEAST_TEXTS)}
    assert shares == pytest.approx({4: 0.25, 8: 0.1, LEAST_TEXTS: 0.06}, abs=0.015)
