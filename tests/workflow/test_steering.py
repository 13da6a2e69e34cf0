"""Steering as files of the workflow, on a real NNsight server that the pool starts."""

from __future__ import annotations

import copy
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from emoprobe.results.activations import load_activations
from emoprobe.results.tables import read_table
from emoprobe.results.trajectory import AgentState, Scores
from tests.workflow.pool import end_pool
from tests.workspace import Workspace, wait_for

VARIANTS = {
    "control": {},
    "filler": {"text": "The kitchen has a wooden table.", "valence": "neutral"},
    "joy": {"text": "What a wonderful day this is!", "valence": "positive"},
}
# Three questions of the steered half: unsteered in three variants, joy added, joy ablated in joy and in filler; and a
# random direction on one of them.
STEERED = 3 * (3 + 1 + 2) + 1
# What follows from any steered trajectory.
AFTER = {"tabulate_steering": 1, "verify": 1, "build_explorer": 1, "report_experiment": 1}


@pytest.fixture(scope="module")
def finished(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A steered experiment that has been run to its end."""
    config: dict[str, Any] = {
        "experiment": {"name": "steered"},
        "model": {"source": str(tiny("llama"))},
        "dataset": {"samples": 6},
        "variants": VARIANTS,
        "generation": {"backend": "nnsight", "max_tokens": 6},
        "workers": {"keep_alive": 900.0},
        "capture": {"hook_points": ["resid_post"], "positions": ["last_prompt"], "dtype": "float32"},
        "steering": {
            "enabled": True,
            "fit": {"questions": 3},
            "layers": [1],
            "doses": [0.0, 0.5],
            "controls": {"random": 1, "shuffled": 0, "orthogonal": False, "questions": 1},
        },
    }
    workspace = Workspace(tmp_path_factory.mktemp("steered"), config)
    workspace.run()
    yield workspace
    end_pool(config)


@pytest.fixture
def after(finished: Workspace, tmp_path: Path) -> Callable[..., Workspace]:
    """A copy of the finished experiment whose steering is changed."""

    def change(**steering: Any) -> Workspace:
        shutil.copytree(finished.folder, tmp_path / "copy", symlinks=True)
        workspace = Workspace(tmp_path / "copy", copy.deepcopy(finished.config))
        workspace.config["steering"].update(steering)
        return workspace

    return change


def made(workspace: Workspace) -> dict[str, tuple[bytes, int]]:
    """Every steered trajectory and score by its path, with its content and its date."""
    root = workspace.layout.root / "steering"
    paths = [*root.rglob("trajectory.jsonl"), *root.rglob("scores.json")]
    return {str(path.relative_to(root)): (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}


def test_every_condition_has_its_trajectories(finished: Workspace) -> None:
    table = read_table(finished.layout.root, "steering")
    assert len(table) == STEERED
    assert table["error"].isna().all()
    assert table.groupby("family").size().to_dict() == {"none": 9, "tone": 9, "random": 1}
    unsteered = table["family"] == "none"
    assert (table["kl"][unsteered] == 0).all()
    assert (table["kl"][~unsteered] > 0).all()
    assert (table["edited_tokens"][unsteered] == 0).all()
    assert (table["log_p_gold"] < 0).all()
    assert (table["perplexity"] > 1).all()
    assert finished.json("verified.json") == {"checked": 18 + STEERED, "problems": [], "unhashed": 0}
    assert finished.planned() == {}


def test_the_unsteered_model_answers_as_it_did_before(finished: Workspace) -> None:
    root = finished.layout.root
    found = sorted((root / "steering/none").glob("*/*/trajectory.jsonl"))
    assert len(found) == 9
    for path in found:
        assert path.read_bytes() == (root / path.relative_to(root / "steering/none")).read_bytes()


def test_a_direction_is_fitted_on_questions_that_are_not_steered(finished: Workspace) -> None:
    root = finished.layout.root
    steered = {path.parent.name for path in (root / "steering/none").glob("*/*/trajectory.jsonl")}
    fitted = sorted({path.name for path in (root / "activations/joy").iterdir()} - steered)
    assert (len(steered), len(fitted)) == (3, 3)
    joy, filler, control = (
        load_activations(root, "resid_post", "last_prompt", variants=[name], samples=fitted).values
        for name in ("joy", "filler", "control")
    )
    expected = joy.mean(0) - filler.mean(0)
    tensors = load_file(finished.layout.direction("joy"))
    assert np.allclose(tensors["direction"], expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-5)
    assert np.allclose(tensors["direction.norm"], np.median(np.linalg.norm(control, axis=2), axis=0), rtol=1e-5)
    assert np.allclose(load_file(finished.layout.direction("random-01"))["direction.norm"], tensors["direction.norm"])


def by_hand(
    model: Any, ids: list[int], first: int, edit: Callable[[torch.Tensor], torch.Tensor] | None
) -> torch.Tensor:
    """Log-probabilities of all next tokens from the last one of the prompt on, with an edit of layer 1's output."""

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        return edit(output) if edit is not None else output

    handle = model.model.layers[1].register_forward_hook(hook)
    try:
        with torch.no_grad():
            return torch.log_softmax(model(torch.tensor([ids])).logits[0, first - 1 :], -1)
    finally:
        handle.remove()


def test_scores_are_those_of_hooks_placed_by_hand(finished: Workspace, smollm2: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(finished.config["model"]["source"])
    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    tensors = load_file(finished.layout.direction("joy"))
    vector, length = torch.tensor(tensors["direction"][1]), float(tensors["direction.norm"][1])
    edits = {
        "add-all/L1/d0.5/control": lambda hidden: hidden + 0.5 * length * vector,
        "ablate-all/L1/d1/joy": lambda hidden: hidden - (hidden @ vector)[..., None] * vector,
    }
    for condition, edit in edits.items():
        folder = sorted((finished.layout.root / "steering/joy" / condition).iterdir())[0]
        state = AgentState.read_file(folder / "agent_state.json")
        scores = Scores.read_file(folder / "scores.json")
        prompt, text = state.prompt_token_ids or [], state.completion_token_ids or []
        gold = tokenizer(scores.gold, add_special_tokens=False)["input_ids"]
        logs = by_hand(model, prompt + gold, len(prompt), edit)
        assert scores.log_p_gold == pytest.approx(
            float(sum(logs[at, token] for at, token in enumerate(gold))), abs=1e-3
        )
        plain = by_hand(model, prompt + text, len(prompt), None)
        mean = float(torch.stack([plain[at, token] for at, token in enumerate(text)]).mean())
        assert scores.perplexity == pytest.approx(np.exp(-mean), rel=1e-3)
        steered = by_hand(model, prompt + text, len(prompt), edit)
        expected = (steered.exp() * (steered - plain)).sum(-1)[: len(text)]
        assert scores.kl == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize(
    ("steering", "planned", "spared"),
    [
        (
            {"doses": [0.5, -0.25]},
            {"steer": 4, "score": 4, **AFTER},
            {"fit_direction", "generate_and_capture", "probe_activations"},
        ),
        (
            {"controls": {"random": 2, "shuffled": 0, "orthogonal": False, "questions": 1}},
            {"fit_direction": 1, "steer": 1, "score": 1, **AFTER},
            {"generate_and_capture"},
        ),
        ({"scores": {"kl_tokens": 3}}, {"score": STEERED, **AFTER}, {"fit_direction", "steer"}),
        (
            {"coherence": {"max_perplexity": 9.0}},
            {"analyze_steering": 1, "report_experiment": 1},
            {"fit_direction", "steer", "score", "tabulate_steering"},
        ),
    ],
)
def test_a_changed_key_plans_what_depends_on_it(
    after: Callable[..., Workspace], steering: dict[str, Any], planned: dict[str, int], spared: set[str]
) -> None:
    found = after(**steering).planned()
    assert found.items() >= planned.items()
    assert not spared & found.keys()


def test_more_questions_plan_the_new_ones(after: Callable[..., Workspace]) -> None:
    workspace = after()
    workspace.config["dataset"] = {"samples": 8}
    planned = workspace.planned()
    assert planned["generate_and_capture"] == 6
    assert planned["steer"] == planned["score"] == 6
    assert "fit_direction" not in planned


def test_other_layers_make_no_steered_answer_again_that_has_no_direction(after: Callable[..., Workspace]) -> None:
    workspace = after()
    workspace.config["capture"] = {**workspace.config["capture"], "layers": [0, 1]}
    planned = workspace.planned()
    assert planned.items() >= {"generate_and_capture": 18, "fit_direction": 2, "steer": STEERED - 9, **AFTER}.items()
    assert planned["score"] == STEERED - 9


def test_a_changed_direction_makes_its_own_trajectories_anew(after: Callable[..., Workspace]) -> None:
    workspace = after()
    path = workspace.layout.direction("random-01")
    tensors = load_file(path)
    save_file({**tensors, "direction": -tensors["direction"]}, path)
    assert workspace.planned().items() >= {"steer": 1, "score": 1, **AFTER}.items()


def test_a_lost_trajectory_comes_back_byte_for_byte_with_its_score_alone(finished: Workspace) -> None:
    before = made(finished)
    folder = next((finished.layout.root / "steering/joy").glob("add-all/L1/d0.5/control/*"))
    (folder / "trajectory.jsonl").unlink()
    planned = finished.planned()
    assert planned.items() >= {"steer": 1, "score": 1, **AFTER}.items()
    assert not {"fit_direction", "generate_and_capture", "analyze_behaviour", "probe_activations"} & planned.keys()
    finished.run()
    found = made(finished)
    lost = str(folder.relative_to(finished.layout.root / "steering"))
    assert {name for name in found if found[name] != before[name]} == {
        f"{lost}/trajectory.jsonl",
        f"{lost}/scores.json",
    }
    assert found[f"{lost}/trajectory.jsonl"][0] == before[f"{lost}/trajectory.jsonl"][0]
    assert finished.planned() == {}


def test_nothing_that_was_steered_is_lost_with_the_workflow(after: Callable[..., Workspace]) -> None:
    workspace = after()
    expected = {name: content for name, (content, _) in made(workspace).items()}
    for folder in (workspace.layout.root / "steering").iterdir():
        if folder.name != "directions":
            shutil.rmtree(folder)
    process = workspace.start("--until", "score")
    printed = workspace.folder / "snakemake.out"
    # A job counts for Snakemake when it says that it has finished, which is after its files are there.
    wait_for(
        lambda: printed.read_text().count("(Rule: steer)") >= 3 or process.poll() is not None,
        what="some steered trajectories",
    )
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    before = made(workspace)
    workspace.run("--unlock")
    workspace.run("--until", "score")
    found = made(workspace)
    assert found.keys() == expected.keys()
    kept = [name for name, entry in before.items() if found[name] == entry]
    assert len(kept) >= 2
    assert all(found[name][0] == content for name, content in expected.items() if name.endswith("trajectory.jsonl"))
