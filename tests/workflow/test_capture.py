"""Captures as files of the workflow, on a real NNsight server that the pool starts."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from emoprobe.results.activation_folder import ActivationError
from emoprobe.results.activations import load_activations
from tests.conftest import VARIANTS
from tests.workflow.pool import end_pool
from tests.workspace import Workspace

TABLES = dict.fromkeys(
    ("tabulate_trajectories", "analyze_behaviour", "draw_figures", "build_explorer", "report_experiment"), 1
)
CAPTURED = {"list_activations": 1, "verify": 1, "probe_activations": 1, "draw_probe_figures": 1}


@pytest.fixture(scope="module")
def finished(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """An experiment whose one kind of server generates and captures, run to its end."""
    config: dict[str, Any] = {
        "experiment": {"name": "inline"},
        "model": {"source": str(tiny("llama"))},
        "dataset": {"samples": 3},
        "variants": VARIANTS,
        "generation": {"backend": "nnsight", "max_tokens": 8},
        "workers": {"keep_alive": 900.0},
        "capture": {"dtype": "float32"},
    }
    workspace = Workspace(tmp_path_factory.mktemp("captured"), config)
    workspace.run()
    yield workspace
    end_pool(config)


@pytest.fixture(scope="module")
def replayed(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """The same trajectories, captured by replay: the trajectory folders of the inline run, a rule of its own."""
    config = copy.deepcopy(finished.config)
    config["generation"] |= {"backend": "vllm", "engine": {"max_model_len": None}}  # the tiny model's own
    workspace = Workspace(tmp_path_factory.mktemp("replayed"), config)
    finished.copy_without_captures(workspace)
    workspace.run("--rerun-triggers", "mtime")
    yield workspace
    end_pool(config)


def test_every_trajectory_has_its_activations(finished: Workspace) -> None:
    manifest = finished.json("activations_manifest.json")
    assert len(manifest) == 9
    for name, entry in manifest.items():
        variant, sample = name.split("/")
        metadata = finished.json("activations", variant, sample, "metadata.json")
        state = finished.json(variant, sample, "agent_state.json")
        assert metadata["token_ids"] == state["prompt_token_ids"] + state["completion_token_ids"]
        assert metadata["spans"]["response"] == [len(state["prompt_token_ids"]), len(metadata["token_ids"])]
        assert entry["sha256"] == metadata["sha256"]
        assert (metadata["spans"]["prefix"] is None) == (variant == "control")
        tensors = load_file(finished.layout.root / entry["save_dir"] / "activations.safetensors")
        assert {tuple(tensor.shape) for tensor in tensors.values()} == {(3, 5, 48)}
    assert finished.json("verified.json") == {"checked": 9, "problems": [], "unhashed": 0}
    assert finished.planned() == {}


@pytest.mark.parametrize(("options", "threads"), [([], 2), (["--set-threads", "probe_activations=3"], 3)])
def test_probes_take_threads_of_the_machine(finished: Workspace, options: list[str], threads: int) -> None:
    rule = ["--forcerun", "probe_activations", "--until", "probe_activations", "--quiet", "host", "--cores", "4"]
    output = finished.run("-n", *rule, *options)
    assert re.findall(r"^ +threads: (\d+)$", output, re.MULTILINE) == [str(threads)]


def test_replay_makes_the_same_activations(finished: Workspace, replayed: Workspace) -> None:
    assert replayed.trajectories() == finished.trajectories()
    for hook_point in ("input_layernorm.output", "post_attention_layernorm.output"):
        for position in ("last_prompt", "prefix_mean", "response_mean"):
            first, second = (load_activations(each.layout.root, hook_point, position) for each in (finished, replayed))
            assert first.index.equals(second.index)
            assert np.abs(first.values - second.values).max() <= 1e-5 * np.abs(first.values).max()


@pytest.mark.parametrize(
    "capture", [{"layers": [0]}, {"hook_points": ["mlp.output"]}, {"positions": "all"}, {"dtype": "float16"}]
)
def test_capture_settings_plan_no_trajectory(replayed: Workspace, capture: dict[str, Any]) -> None:
    workspace = Workspace(replayed.folder, {**replayed.config, "capture": {**replayed.config["capture"], **capture}})
    planned = workspace.planned()
    assert "generate" not in planned
    assert planned["capture"] == 9
    assert planned["list_activations"] == planned["verify"] == 1


def test_probe_settings_plan_probes_only(after: Callable[..., Workspace]) -> None:
    workspace = after(probes={"folds": 3})
    probed = ("probe_activations", "draw_probe_figures", "build_explorer", "report_experiment", "describe_experiment")
    assert workspace.planned() == dict.fromkeys(probed, 1)


def test_more_captured_samples_plan_the_new_ones(replayed: Workspace, tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "copy", copy.deepcopy(replayed.config))
    shutil.copytree(replayed.folder, workspace.folder)
    for variant in VARIANTS:
        shutil.rmtree(workspace.layout.activations(variant, "gsm8k_0003"))
    workspace.config["capture"]["samples"] = 2
    assert not {"generate", "capture"} & workspace.planned().keys()
    workspace.config["capture"]["samples"] = 3
    planned = workspace.planned()
    assert planned["capture"] == len(VARIANTS)
    assert "generate" not in planned


def test_budgets_of_the_server_plan_nothing(replayed: Workspace) -> None:
    workers = {**replayed.config["workers"], "batch_tokens": 99, "memory_gib": 1.0}
    workspace = Workspace(replayed.folder, {**replayed.config, "workers": workers})
    assert workspace.planned() == {}


def test_a_deleted_trajectory_plans_its_capture(replayed: Workspace) -> None:
    path = replayed.layout.pair("calm", "gsm8k_0002") / "trajectory.jsonl"
    content = path.read_bytes()
    path.unlink()
    try:
        assert replayed.planned() == {"generate": 1, "capture": 1, **CAPTURED, **TABLES}
    finally:
        path.write_bytes(content)
        replayed.run("--touch")


@pytest.mark.parametrize("name", ["activations.safetensors", "metadata.json"])
def test_a_deleted_file_plans_its_capture_alone(after: Callable[..., Workspace], name: str) -> None:
    workspace = after()
    (workspace.layout.activations("calm", "gsm8k_0002") / name).unlink()
    planned = workspace.planned()
    assert planned["generate_and_capture"] == 1
    assert planned["list_activations"] == planned["verify"] == 1


@pytest.mark.parametrize(
    ("path", "damage", "word"),
    [
        ("calm/gsm8k_0001/trajectory.jsonl", lambda path: path.write_bytes(path.read_bytes()[:-40]), "trajectory.jsonl is damaged"),
        ("calm/gsm8k_0001/agent_state.json", lambda path: path.write_text("{"), "agent_state.json is damaged"),
        ("calm/gsm8k_0001/sample.json", lambda path: path.write_text("[]"), "sample.json is damaged"),
        ("activations/calm/gsm8k_0001/activations.safetensors", "flip", "hash or size"),
        ("activations/calm/gsm8k_0001/activations.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-8]), "hash or size"),
        ("activations/calm/gsm8k_0001/activations.safetensors", lambda path: path.unlink(), "No such file"),
        ("activations/calm/gsm8k_0001/metadata.json", lambda path: path.write_text("null"), "metadata.json is damaged"),
    ],
)  # fmt: skip
def test_verify_names_damage(after: Callable[..., Workspace], path: str, damage: Any, word: str) -> None:
    from emoprobe.results.verification import verify

    workspace = after()
    target = workspace.layout.root / path
    if damage == "flip":
        content = bytearray(target.read_bytes())
        content[len(content) // 2] ^= 1
        target.write_bytes(content)
    else:
        damage(target)
    pairs = [(variant, f"gsm8k_000{number}") for variant in VARIANTS for number in (1, 2, 3)]
    found = verify(workspace.layout, pairs, pairs)
    assert found.checked == 9
    assert any(word in problem and "calm/gsm8k_0001" in problem for problem in found.problems)
    assert all("calm/gsm8k_0001" in problem for problem in found.problems)
    assert "delete" in found.problems[0]


def test_damage_is_put_right_by_deleting_just_that(finished: Workspace) -> None:
    before = finished.trajectories()
    folder = finished.layout.activations("calm", "gsm8k_0003")
    expected = load_file(folder / "activations.safetensors")
    shutil.rmtree(folder)
    assert finished.planned()["generate_and_capture"] == 1
    finished.run("--until", "verify")
    found = load_file(folder / "activations.safetensors")
    assert all((found[name] - expected[name]).abs().max() <= 1e-5 for name in expected)
    assert finished.trajectories() == before


def test_the_loader_reads_what_is_asked_for(finished: Workspace) -> None:
    root = finished.layout.root
    some = load_activations(
        root,
        "input_layernorm.output",
        "response_mean",
        variants=["calm", "control"],
        samples=["gsm8k_0002"],
        layers=[2, 0],
    )
    assert some.values.shape == (2, 2, 48)
    assert some.index[["variant", "sample_id"]].to_numpy().tolist() == [
        ["calm", "gsm8k_0002"],
        ["control", "gsm8k_0002"],
    ]
    tensor = load_file(root / "activations/calm/gsm8k_0002/activations.safetensors")["input_layernorm.output"]
    assert np.array_equal(some.values[0], tensor[[2, 0], 3].float().numpy())
    prefix = load_activations(root, "input_layernorm.output", "prefix_mean")
    assert prefix.index.groupby("variant")["empty"].all().to_dict() == {
        "calm": False,
        "control": True,
        "frustration": False,
    }
    for wrong in ({"hook_point": "mlp.output"}, {"position": "middle"}, {"layers": [7]}, {"variants": ["none"]}):
        arguments: dict[str, Any] = {"hook_point": "input_layernorm.output", "position": "last_prompt", **wrong}
        with pytest.raises(ActivationError):
            load_activations(root, arguments.pop("hook_point"), arguments.pop("position"), **arguments)


def test_what_the_model_lacks_is_told_before_anything_is_generated(after: Callable[..., Workspace]) -> None:
    workspace = after(capture={"hook_points": ["nose.output"]})
    shutil.rmtree(workspace.folder / "results")
    output = workspace.run(ok=False)
    assert "'nose.output' does not exist" in output
    assert workspace.trajectories() == {}
