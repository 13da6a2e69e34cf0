"""A folder that anybody made, through the command that analyses it: what it shows, and what it lacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from emoprobe.analysis.trajectory_table import load_trajectories
from emoprobe.command.main import main
from emoprobe.config.files import parse_config
from emoprobe.report.closing import summary_text
from emoprobe.results.activation_folder import ActivationError, ActivationFolder
from emoprobe.results.activations import load_activations
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.statement import Statement
from emoprobe.results.tables import frame, read_table, write_table
from emoprobe.results.trajectory import Trajectory
from emoprobe.stages.probes import probe
from tests.emoprobe.stages import folders
from tests.workspace import ROOT

KEYS = {"about", "verdict", "text", "estimate", "low", "high", "p", "n"}


def analyze(folder: Path) -> list[Statement]:
    """Run the command; what its report says."""
    assert main(["analyze", str(folder)]) == 0
    entries: list[dict[str, Any]] = json.loads((folder / "report.json").read_text())["statements"]
    assert (folder / "report.html").exists()
    for entry in entries:
        assert set(entry) == KEYS
        assert not entry["text"][0].islower()
        assert entry["text"].endswith(".")
    return [Statement.model_validate(entry) for entry in entries]


def about(said: list[Statement], subject: str) -> Statement:
    return next(statement for statement in said if statement.about == subject)


def notes(said: list[Statement]) -> dict[str, str]:
    return {one.about.removeprefix("data:"): one.text for one in said if one.about.startswith("data:")}


def chat(folder: Path, variant: str, sample: str, answer: str, gold: str | None = None) -> None:
    """A trajectory of the conversation alone, with a grade file where the gold answer is known."""
    question = f"What is {sample}?"
    Trajectory([{"role": "user", "content": question}, {"role": "assistant", "content": answer}]).write(
        folder / variant / sample
    )
    if gold is not None:
        values = {"sample_data": {"question": question, "answer": gold, "sample_id": sample}, "sample_id": sample}
        (folder / variant / sample / "sample.json").write_text(json.dumps(values))


def test_where_nothing_is_planted_nothing_is_said(tmp_path: Path) -> None:
    layout = folders.write(tmp_path, folders.Plant())
    said = analyze(layout.root)
    assert not [one for one in said if one.verdict in ("different", "found")]
    assert about(said, "probe:valence").verdict == "not_found"
    assert about(said, "probe:correct").verdict == "not_found"
    assert set(notes(said)) == {"plan", "noise", "texts"}
    contrasts = [one.about for one in said if one.about.startswith("accuracy:")]
    assert contrasts[:3] == ["accuracy:negative-positive", "accuracy:anger-filler", "accuracy:fear-filler"]
    assert contrasts[-1] == "accuracy:filler-control"


def test_what_is_planted_is_said(tmp_path: Path) -> None:
    plant = folders.Plant(accuracy={"anger": 0.04, "joy": 0.97}, valence=1.5, correctness=3.0)
    layout = folders.write(tmp_path, plant)
    said = analyze(layout.root)
    anger, joy = about(said, "accuracy:anger-filler"), about(said, "accuracy:joy-filler")
    assert (anger.verdict, joy.verdict) == ("different", "different")
    assert "Anger lowers" in anger.text
    assert "Joy raises" in joy.text
    assert anger.high is not None
    assert anger.high < 0
    different = {one.about for one in said if one.verdict == "different" and one.about.endswith("-filler")}
    assert different == {anger.about, joy.about}
    for target in ("valence", "correct"):
        found = about(said, f"probe:{target}")
        assert found.verdict == "found"
        assert found.p is not None
        assert found.p <= 0.05
    gain = about(said, "probe:correct")
    assert gain.low is not None
    assert gain.low > 0


def test_steered_trajectories_are_judged_as_well(tmp_path: Path) -> None:
    """Also where the config does not know of them, and some were not scored."""
    layout = folders.write(tmp_path, folders.Plant(questions=24, captured=0))
    folders.steer(layout, effect=-2.0)
    layout.steered("anger/add-all/L1/d0.4", "control", "q_0001").mkdir(parents=True)
    said = [one for one in analyze(layout.root) if one.about.endswith(":anger")]
    assert [(one.about, one.verdict) for one in said] == [("steering:anger", "found"), ("mediation:anger", "note")]
    found, mediated = said
    assert found.p == pytest.approx(1 / 21)
    assert found.high is not None
    assert found.high < 0
    assert "lowers log p(gold) more than random and shuffled-label directions" in found.text
    assert "changes the effect of anger on log p(gold), against filler, from -2.00" in mediated.text
    for name in ("steering_dose_response", "steering_cost"):
        assert layout.figure(name).exists()
    table = read_table(layout.root, "steering")
    assert table["family"].value_counts().to_dict() == {"none": 30, "tone": 30, "random": 390, "shuffled": 200}


def test_a_push_that_does_nothing_is_not_found(tmp_path: Path) -> None:
    layout = folders.write(tmp_path, folders.Plant(questions=24, captured=0))
    folders.steer(layout, effect=0.0)
    said = [one for one in analyze(layout.root) if one.about.endswith(":anger")]
    assert [(one.about, one.verdict) for one in said] == [("steering:anger", "not_found"), ("mediation:anger", "note")]
    assert "would have been found with 80 %" in said[0].text
    assert "No share is given" in said[1].text


def test_conversations_alone(tmp_path: Path) -> None:
    """No config, no samples, no plan; foreign files beside them, and thoughts that never end."""
    folder = tmp_path / "runs of 2024.1"
    for number in range(12):
        for variant, shown in (("control", "Answer: 7"), ("Angry tone", f"Answer: {7 if number < 2 else 8}")):
            chat(folder, variant, f"item{number}", shown, "7")
    chat(folder, "Angry tone", "item11", "<think>Let me see, Answer: 7", "7")
    (folder / "notes").mkdir()
    (folder / "notes" / "readme.txt").write_text("mine")
    (folder / "Angry tone" / "prompt.txt").write_text("mine")
    said = analyze(folder)
    first = about(said, "accuracy:Angry tone-control")
    assert first.verdict == "different_here"
    assert "The text of Angry tone used here lowers" in first.text
    assert {"plan", "config", "samples", "finish", "references"} <= set(notes(said))
    assert "no filler" in notes(said)["references"]
    table = read_table(folder, "trajectories").set_index(["variant", "sample_id"])
    assert not table.loc[("Angry tone", "item11"), "correct"]
    report = json.loads((folder / "report.json").read_text())
    assert report["experiment"] == "runs of 2024.1"
    assert {row["variant"]: row["correct"] for row in report["accuracy"]} == {"control": 12, "Angry tone": 2}
    assert report["model"] == {"id": None, "dtype": None, "revision": None}
    assert "runs of 2024.1: 24 trajectories of an unknown model on 12 samples" in summary_text(folder / "report.json")


@pytest.mark.parametrize(
    ("variants", "answer", "golds", "about_what", "words"),
    [
        (
            ["anger", "joy"],
            "Answer: 7",
            ["7"] * 10,
            "data:references",
            "Name the one that the others are compared with",
        ),
        (["anger", "filler"], "Answer: 7", ["7"] * 10, "accuracy:anger-filler", "is undecided"),
        (["control"], "Answer: 7", [None, *["7"] * 9], "data:references", "one variant, control"),
        (["control"], "Answer: 7", [None, *["7"] * 9], "data:grades", "1 of 10 answers"),
        (["control", "anger"], "I do not know", [None], "data:floor", "No trajectory has a grade"),
    ],
)
def test_what_cannot_be_compared_is_said(
    tmp_path: Path, variants: list[str], answer: str, golds: list[str | None],
    about_what: str, words: str,
) -> None:  # fmt: skip
    for variant in variants:
        for number, gold in enumerate(golds):
            chat(tmp_path, variant, f"q{number}", answer, gold)
    said = analyze(tmp_path)
    assert words in about(said, about_what).text
    contrasts = [one for one in said if one.about.startswith("accuracy:")]
    assert len(contrasts) == (1 if variants in (["anger", "filler"], ["control", "anger"]) else 0)


def test_a_capture_that_failed_tells_nothing_of_the_others(tmp_path: Path) -> None:
    layout = folders.write(tmp_path, folders.Plant(questions=12, captured=12))
    first = layout.activations("anger", "q_0001")
    shutil.rmtree(first)
    ActivationFolder.write_failure(first, "no server")
    state = layout.pair("anger", "q_0001") / "agent_state.json"
    values = json.loads(state.read_text()) | {"error": "no server"}
    state.write_text(json.dumps(values))
    said = analyze(layout.root)
    assert about(said, "probe:valence").n == 11 * 8, "questions that all its variants have"
    assert "No server answered 1 request" in notes(said)["failures"]


def test_activations_without_a_config(tmp_path: Path) -> None:
    layout = folders.write(tmp_path, folders.Plant(questions=12, captured=12))
    layout.resolved_yaml.unlink()
    shutil.rmtree(layout.sample("any").parent)
    said = analyze(layout.root)
    assert about(said, "probe:valence").verdict == "note"
    assert {"config", "samples"} <= set(notes(said))


def test_a_folder_of_the_first_version(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    shutil.copytree(ROOT / "tests/fixtures/first_version", folder)
    said = analyze(folder)
    assert {one.about for one in said} >= {"accuracy:frustration-control", "accuracy:encouragement-control"}
    assert "plan" in notes(said)


def test_a_folder_without_trajectories_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("analyze", "view"):
        assert main([command, str(tmp_path)]) == 1
        assert "holds no trajectory: VARIANT/SAMPLE" in capsys.readouterr().err
    np.save(tmp_path / "values.npy", np.zeros(3))
    assert main(["analyze", str(tmp_path)]) == 1
    assert "holds no trajectory" in capsys.readouterr().err


def test_a_direction_of_a_few_texts_gets_no_verdict(tmp_path: Path) -> None:
    layout = folders.write(tmp_path, folders.Plant(questions=24, captured=0))
    folders.steer(layout, effect=-2.0, texts=12)
    (said,) = (one for one in analyze(layout.root) if one.about == "steering:anger")
    assert said.verdict == "note"
    assert "it takes 24 texts to fit on, and the questions of the fitting half have 12" in said.text


def test_a_name_that_ends_like_a_draw_is_one_beside_a_first_draw_alone(tmp_path: Path) -> None:
    """`day_3-d2` is a question of its own, `q_1-d2` another answer to `q_1`; activations are counted alike."""
    for variant in ("control", "angry"):
        for name in ("day_3-d2", "q_1", "q_1-d2"):
            if (variant, name) != ("angry", "q_1"):  # a first draw of another variant is one as well
                chat(tmp_path, variant, name, "Answer: 7", "7")
                folders.activations(tmp_path / "activations" / variant / name, np.zeros((1, 2, 4)))
    expected = {("day_3-d2", 1), ("q_1", 1), ("q_1", 2)}
    table = load_trajectories(tmp_path)
    assert set(zip(table["sample_id"], table["draw"], strict=True)) == expected
    index = load_activations(tmp_path, "layer.output", "last_prompt").index
    assert set(zip(index["sample_id"], index["draw"], strict=True)) == expected
    Layout(tmp_path).sample("day_3").parent.mkdir()
    Layout(tmp_path).sample("day_3").write_text("{}")
    assert Layout(tmp_path).drawn("day_3-d2") == ("day_3", 2)


def test_probes_read_the_first_ask_of_tones_and_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one request answers and captures, every trajectory has activations."""
    rows = [
        {"variant": variant, "sample_id": "s_1", "draw": draw}
        for variant, draws in (("control", 2), ("filler", 6), ("reformatted-1", 2))
        for draw in range(1, draws + 1)
    ]
    write_table(Layout(tmp_path), "trajectories", frame(TABLES["trajectories"], rows))
    read: list[pd.DataFrame] = []

    def source(_: Layout, table: pd.DataFrame) -> None:
        read.append(table)
        raise ActivationError("seen")

    monkeypatch.setattr("emoprobe.stages.probes.folder_source", source)
    config = parse_config({"generation": {"draws": 2, "temperature": 1.0}})
    with pytest.raises(ActivationError, match="seen"):
        probe(config, Layout(tmp_path))
    assert read[0][["variant", "draw"]].to_numpy().tolist() == [
        [name, draw] for name in ("control", "filler") for draw in (1, 2)
    ]
