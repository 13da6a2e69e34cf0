"""A folder that another program wrote: any one field of any of its files may be missing, or null."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from emoprobe.analysis.preregistration import analysis_plan
from emoprobe.analysis.trajectory_table import trajectory_table
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.conversations.responses import Delivery
from emoprobe.conversations.samples import known_pairs
from emoprobe.report.figures import table_rules
from emoprobe.report.page import experiment_page
from emoprobe.report.summary import report
from emoprobe.results import atomic
from emoprobe.results.activation_folder import ActivationFolder
from emoprobe.results.layout import Layout
from emoprobe.results.manifest import manifest
from emoprobe.results.metadata import RunMetadata
from emoprobe.results.tables import read_table
from emoprobe.results.trajectory import Trajectory
from emoprobe.stages.analysis_code import analysis_code
from emoprobe.stages.behaviour import analyze_behaviour
from emoprobe.stages.folder import NothingThereError, analyze_folder
from emoprobe.stages.report import write_report
from emoprobe.stages.trajectories import tabulate
from tests.emoprobe.stages import folders

FILES = [
    "metadata.json",
    "anger/q_0001/agent_state.json",
    "anger/q_0001/sample.json",
    "samples/q_0001.json",
    "activations/anger/q_0001/metadata.json",
    "activations_manifest.json",
]


def fields(values: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of every field, those of nested mappings as well; of a list its first entry stands for all."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield (*place, key)
            yield from fields(value, (*place, key))
    elif isinstance(values, list) and values and isinstance(values[0], dict):
        yield from fields(values[0], (*place, 0))


def changed(values: Any, place: tuple[Any, ...], *, null: bool) -> Any:
    values = copy.deepcopy(values)
    inside = values
    for key in place[:-1]:
        inside = inside[key]
    if null:
        inside[place[-1]] = None
    else:
        del inside[place[-1]]
    return values


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A small folder with every kind of file, tables and report."""
    layout = folders.write(tmp_path_factory.mktemp("whole"), folders.Plant(questions=8, captured=2))
    pairs = [("anger", "q_0001"), ("control", "q_0001")]
    atomic.write_json(layout.manifest, manifest(layout, pairs).model_dump(mode="json"))
    state = json.loads((layout.root / FILES[1]).read_text())
    delivery = Delivery("w", [], "2026-01-01T00:00:00+00:00", 1.0)
    state |= {"worker_id": "w", "timing": {"started": delivery.started, "seconds": 1.0}, "hardware": "cpu"}
    state |= {"attempts": [{"worker": "w", "started": delivery.started, "seconds": 1.0, "error": "status 500"}] * 2}
    (layout.root / FILES[1]).write_text(json.dumps(state))
    return layout


PAIRS = [(variant, "q_0001") for variant in ("control", "filler", "anger", "joy")]


def make(config: Config, layout: Layout) -> dict[str, Any]:
    """Tables and report, without probes and figures."""
    tabulate(config, layout, PAIRS)
    analyze_behaviour(config, layout)
    found = report(config, layout)
    experiment_page(config, layout, found, table_rules(config))
    return found


@pytest.mark.parametrize("path", FILES)
def test_any_field_may_be_missing_or_null(whole: Layout, tmp_path: Path, path: str) -> None:
    layout = Layout(tmp_path / "folder")
    shutil.copytree(whole.root, layout.root)
    config = load_config(layout.root)
    original = json.loads((layout.root / path).read_text())
    for place in fields(original):
        for null in (False, True):
            (layout.root / path).write_text(json.dumps(changed(original, place, null=null)))
            # What reads this file: the report, readers of activations, or the table of trajectories.
            if path == "metadata.json":
                assert RunMetadata.of(layout).timestamp or place == ("timestamp",)
            elif path.startswith("activations"):
                ActivationFolder.read(layout.activations("anger", "q_0001"))
            else:
                assert len(trajectory_table(layout.root, [("anger", "q_0001")], config)) == 1, place
    (layout.root / path).write_text("{}")
    assert make(config, layout)["trajectories"] == 4


def test_any_key_of_the_config_may_be_missing(whole: Layout, tmp_path: Path) -> None:
    """But for what a config must say to be one, such as a text that a variant is scrambled from."""
    layout = Layout(tmp_path / "folder")
    shutil.copytree(whole.root, layout.root)
    values = yaml.safe_load(layout.resolved_yaml.read_text())
    for variant in values["variants"].values():  # most of the file, whose reading takes most of the time
        variant["texts"] = (variant["texts"] or [])[:1] or None
    for place in [place for place in fields(values) if place != ("variants", "control")]:
        layout.resolved_yaml.write_text(yaml.dump(changed(values, place, null=False), Dumper=yaml.CSafeDumper))
        assert load_config(layout.root).variants.keys() >= {"control"}, place
    layout.resolved_yaml.write_text("{}")
    assert make(load_config(layout.root), layout)["trajectories"] == 4


def test_a_model_that_nobody_names_is_unknown(whole: Layout, tmp_path: Path) -> None:
    """Whichever file is there without naming it."""
    for number, (drop, keep) in enumerate([("model", None), ("model", "dtype"), (None, None)]):
        layout = Layout(tmp_path / str(number))
        shutil.copytree(whole.root, layout.root)
        values = yaml.safe_load(layout.resolved_yaml.read_text())
        if drop is not None:
            values[drop] = {keep: values[drop][keep]} if keep else {}
            layout.resolved_yaml.write_text(yaml.safe_dump(values))
        else:
            layout.resolved_yaml.unlink()
        atomic.write_json(layout.metadata, {"experiment_name": "theirs"})
        analyze_folder(layout.root)
        found = json.loads(layout.report.read_text())
        assert found["model"]["id"] is None
        said = {one["about"]: one["text"] for one in found["statements"]}
        assert "the model" in said["data:provenance"]
        assert "versions of the software" in said["data:provenance"]
        assert ("the data set" in said["data:provenance"]) is (drop is None)
        for text in (layout.report_html.read_text(), layout.report.read_text()):
            assert "smollm2" not in text
        assert ("gsm_symbolic" in layout.report_html.read_text()) is (drop is not None)


def test_what_is_said_is_not_called_unknown(whole: Layout) -> None:
    made = make(load_config(whole.root), whole)
    assert made["model"]["id"] == "tiny"
    assert not [one for one in made["statements"] if one["about"] == "data:provenance"]


def test_draws_that_are_there_do_not_deviate_from_the_plan(whole: Layout, tmp_path: Path) -> None:
    """A plan without a config: what can be counted is no deviation of it."""
    layout = Layout(tmp_path / "folder")
    shutil.copytree(whole.root, layout.root)
    shutil.rmtree(layout.root / "activations")
    config = load_config(layout.root)
    atomic.write_json(layout.plan, analysis_plan(config, None, None, None).values() | {"estimators": []})
    layout.resolved_yaml.unlink()
    analyze_folder(layout.root)
    said = [one["text"] for one in json.loads(layout.report.read_text())["statements"] if one["about"] == "data:plan"]
    assert "questions" not in said[0]
    assert "draws" not in said[0]


@pytest.mark.parametrize("probed", [True, False])
def test_code_that_an_experiment_does_not_run_is_no_deviation(whole: Layout, tmp_path: Path, probed: bool) -> None:
    layout = Layout(tmp_path / "folder")
    shutil.copytree(whole.root, layout.root)
    loaded = load_config(layout.root)
    config = loaded.model_copy(update={"capture": loaded.capture.model_copy(update={"enabled": probed})})
    rules = table_rules(config)
    assert ("probe_activations" in rules) is probed
    then = analysis_code() | {"analyze_behaviour": "older", "probe_activations": "older"}
    atomic.write_json(layout.plan, analysis_plan(config, code=then).values())
    tabulate(config, layout, PAIRS)
    analyze_behaviour(config, layout)
    write_report(config, layout, rules)
    (said,) = (
        one["text"] for one in json.loads(layout.report.read_text())["statements"] if one["about"] == "data:plan"
    )
    assert "the code of analyze_behaviour changed" in said
    assert ("the code of probe_activations changed" in said) is probed


def chat(folder: Path, messages: list[dict[str, Any]], answer: Any = "7") -> None:
    folder.mkdir(parents=True)
    (folder / "trajectory.jsonl").write_text("\n\n".join(json.dumps(message) for message in messages) + "\n\n")
    (folder / "sample.json").write_text(json.dumps({"sample_data": {"answer": answer, "sample_id": 3}}))


def test_conversations_of_other_programs(tmp_path: Path) -> None:
    """Further turns, tools, content in parts, no content, and no answer at all."""
    user: dict[str, Any]
    said: dict[str, Any]
    user, said = {"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": "Answer: 7"}
    parts = [{"type": "text", "text": "3 + 4"}, {"type": "image_url", "image_url": {"url": "x"}}, "Answer: 7"]
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    conversations: dict[str, list[dict[str, Any]]] = {
        "thanks": [user, said, {"role": "user", "content": "Thanks!"}],
        "tool": [user, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "7"}, said],
        "parts": [{"role": "user", "content": parts}, {"role": "assistant", "content": parts}],
        "call": [user, {"role": "assistant", "content": None, "tool_calls": [call]}],
        "silent": [user],
        "number": [user, {"role": "assistant", "content": 7}],
    }
    for name, messages in conversations.items():
        chat(tmp_path / "control" / name, messages)
    layout = analyze_folder(tmp_path)
    table = read_table(tmp_path, "trajectories").set_index("sample_id")
    assert {*table.index[table["lenient"].fillna(False)]} == {"thanks", "tool", "parts", "number"}
    assert table.loc["silent", ["completion", "correct", "lenient", "steps"]].isna().all()
    assert table.loc["call", "completion"] == ""
    assert table.loc["parts", "completion"] == "3 + 4\nAnswer: 7"
    said_of = {one["about"]: one["text"] for one in json.loads(layout.report.read_text())["statements"]}
    assert said_of["data:answers"].startswith("Conversations without a message of the assistant are left out: 1")
    again = Trajectory.read(tmp_path / "control" / "tool")
    again.write(tmp_path / "copy" / "tool")
    assert Trajectory.read(tmp_path / "copy" / "tool").messages[1]["tool_calls"] == [call]


def test_dates_of_other_programs(whole: Layout, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "folder")
    shutil.copytree(whole.root, layout.root)
    path = layout.root / FILES[1]
    values = json.loads(path.read_text())
    path.write_text(json.dumps(values | {"timing": {"started": "yesterday at noon", "seconds": 2.0}}))
    assert make(load_config(layout.root), layout)["workers"][0]["tokens_per_second"] is None


def test_what_the_config_does_not_contain_is_left_out_and_said(whole: Layout, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "folder")
    shutil.copytree(whole.root, layout.root)
    for name in ("old/q_0001", "anger/q_0009", "anger/q_0001-d2", "anger/other_0001"):
        shutil.copytree(layout.pair("anger", "q_0001"), layout.root / name)
    analyze_folder(layout.root)
    found = json.loads(layout.report.read_text())
    assert found["trajectories"] == 8 * len(folders.VALENCES)
    said = {one["about"]: one["text"] for one in found["statements"]}
    assert said["data:leftovers"].startswith("4 trajectories in the folder are not in its experiment.yaml")


def test_a_config_that_leaves_names_open_rules_nothing_out(whole: Layout) -> None:
    pairs = [("mine", "a"), ("control", "q_0009-d7")]
    assert known_pairs(Config(), pairs) == pairs
    assert known_pairs(None, pairs) == pairs
    assert known_pairs(load_config(whole.root), pairs) == []


def test_a_config_of_another_experiment_is_refused(whole: Layout, tmp_path: Path) -> None:
    chat(tmp_path / "mine" / "q", [{"role": "user", "content": "?"}])
    shutil.copy(whole.resolved_yaml, tmp_path)
    with pytest.raises(NothingThereError, match=r"contains none of the 1 trajectories there, such as mine/q"):
        analyze_folder(tmp_path)
