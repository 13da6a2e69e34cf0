"""Which trajectories are steered: conditions, their folders, and the two halves of the questions."""

from __future__ import annotations

from typing import Any

import pytest

from emoprobe.config.files import parse_config
from emoprobe.steering.grid import EDIT, SteeredPair, SteeringEdit, SteeringGrid, UnknownConditionError, halves

VARIANTS = {
    "control": {},
    "filler": {"text": "A table.", "valence": "neutral"},
    "joy": {"text": "Wonderful!", "valence": "positive"},
    "anger": {"text": "Enough!", "valence": "negative"},
}


def plan(n_layers: int | None = 30, samples: int = 8, draws: int = 1, **steering: Any) -> SteeringGrid:
    """The plan of an experiment without groups."""
    generation = {"draws": draws, "temperature": 0.0 if draws == 1 else 1.0}
    config = parse_config(
        {
            "dataset": {"samples": samples},
            "variants": VARIANTS,
            "generation": generation,
            "steering": {"enabled": True, **steering},
        }
    )
    return SteeringGrid(config, (None,) * samples, n_layers)


def test_every_direction_meets_every_condition() -> None:
    controls = {"random": 2, "shuffled": 1, "questions": 1}
    found = plan(layers=[3, [4, 6]], doses=[-0.5, 0.0, 0.25], controls=controls, methods=["diff_means", "probe"])
    assert list(found.directions) == [
        "joy", "anger", "probe-joy", "probe-anger", "orthogonal-joy", "orthogonal-anger", "shuffled-joy-01",
        "shuffled-anger-01", "random-01", "random-02",
    ]  # fmt: skip
    folders = {condition for condition, _, _ in found.conditions}
    assert {f"joy/add-all/L{layers}/d{dose}" for layers in ("3", "4+6") for dose in ("-0.5", "0.25")} <= folders
    assert "joy/add-all/L3/d0" not in folders
    ablated = [(folder, variant) for folder, variant, _ in found.conditions if "ablate" in folder]
    assert sorted(ablated) == sorted(
        (f"{tone}/ablate-all/L{layers}/d1", variant)
        for tone in ("joy", "anger")
        for layers in ("3", "4+6")
        for variant in (tone, "filler")
    )
    # Every variant that is edited has its unsteered baseline on all questions.
    edited = {variant for folder, variant, _ in found.conditions if folder != "none"}
    assert {variant for folder, variant, _ in found.conditions if folder == "none"} == edited
    counts = {folder.partition("/")[0]: len(samples) for folder, _, samples in found.conditions}
    assert counts["joy"] == counts["probe-joy"] == counts["none"] == 4
    assert counts["random-01"] == counts["orthogonal-joy"] == counts["shuffled-joy-01"] == 1
    assert len(found.trajectories) == len(set(found.trajectories.values()))


def test_controls_may_have_fewer_doses() -> None:
    found = plan(doses=[-0.5, 0.5], controls={"random": 1, "doses": [0.5]})
    doses = {
        name: {folder.rpartition("/d")[2] for folder, _, _ in found.conditions if folder.startswith(name)}
        for name in ("random", "joy/add")
    }
    assert doses == {"random": {"0.5"}, "joy/add": {"-0.5", "0.5"}}


def test_draws_are_steered_as_well() -> None:
    found = plan(draws=2, questions=1, operations=["ablate"], controls={"random": 0}, tones=["joy"])
    assert {steered.name[-3:] for steered in found.trajectories} == {found.steered[0][-3:], "-d2"}


def test_the_middle_is_at_half_depth() -> None:
    assert plan(n_layers=30).layers == [(15,)]
    with pytest.raises(ValueError, match="depth"):
        _ = plan(n_layers=None).layers


@pytest.mark.parametrize(
    "folder", ["joy/add-all/L14/d0.4", "random-01/add-prompt/L3+5/d-1", "x/ablate-generation/L0/d1"]
)
def test_folders_and_edits_are_each_others_reverse(folder: str) -> None:
    import re

    edit = SteeringEdit.parse(folder)
    assert edit is not None
    assert edit.folder == folder
    assert re.fullmatch(f"[^/]+/{EDIT}", folder)


def test_a_folder_that_is_no_condition_is_refused() -> None:
    assert SteeringEdit.parse("none") is None
    with pytest.raises(UnknownConditionError):
        SteeringEdit.parse("joy/add-all/L14")


def test_without_a_filler_nothing_is_orthogonal_to_it() -> None:
    config = parse_config(
        {"variants": {"control": {}, "joy": VARIANTS["joy"]}, "steering": {"controls": {"random": 1, "shuffled": 2}}}
    )
    found = SteeringGrid(config, (None,) * 8, 30)
    assert found.reference == "control"
    assert list(found.directions) == ["joy", "shuffled-joy-01", "shuffled-joy-02", "random-01"]
    assert found.fitted_variants("joy") == ["joy", "control"]
    assert found.fitted_variants("random-01") == ["control"]


def test_halves_share_no_group_and_stay_when_questions_are_added() -> None:
    groups = [f"template {(7 * place) % 23}" for place in range(60)]
    whole = halves(groups, seed=1)
    assert sorted(whole.fitted + whole.steered) == list(range(60))
    assert not {groups[place] for place in whole.fitted} & {groups[place] for place in whole.steered}
    first = halves(groups[:30], seed=1)
    assert first.fitted == [place for place in whole.fitted if place < 30]
    assert first.steered == [place for place in whole.steered if place < 30]
    assert halves(groups, seed=2) != whole


def test_a_handful_of_groups_cannot_be_dealt() -> None:
    found = halves(["easy", "hard"] * 10, seed=1)
    assert len(found.fitted) == len(found.steered) == 10


def test_copies_of_a_question_are_in_one_half() -> None:
    asked = [f"{place % 15} + 1?" for place in range(60)]
    found = halves([None] * 60, 1, asked)
    assert sorted(found.fitted + found.steered) == list(range(60))
    assert not {asked[place] for place in found.fitted} & {asked[place] for place in found.steered}
    # Questions that come once are dealt as where it is not known what they ask.
    assert halves([None] * 15, 1, asked[:15]) == halves([None] * 15, 1)


@pytest.mark.parametrize("samples", [8, 9, 50])
def test_questions_without_groups_are_halved(samples: int) -> None:
    found = plan(samples=samples)
    assert abs(len(found.fitted) - len(found.steered)) <= 1
    assert not set(found.fitted) & set(found.steered)
    assert SteeredPair("none", "control", found.steered[0]) in found.trajectories
