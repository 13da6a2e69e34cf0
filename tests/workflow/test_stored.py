"""A results folder of version 0.2, with steering and features: what a plan makes of it, and of every change to it.

No model is called: the tests read plans.
"""

from __future__ import annotations

import copy
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from emoprobe.config.files import parse_config
from emoprobe.workflow.targets import Targets
from tests.workspace import ROOT, Workspace, copy_of_code

STORED = ROOT / "tests/fixtures/version_0_2.tar.xz"
# Rules that call a model.
CALLS = {"generate", "generate_and_capture", "capture", "capture_tokens", "steer", "score", "outcomes"}


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The folder as it was left behind, with its dates."""
    folder = tmp_path_factory.mktemp("stored")
    with tarfile.open(STORED) as archive:
        archive.extractall(folder, filter="data")
    return Workspace(folder, yaml.safe_load((folder / "config.yaml").read_text()))


@pytest.fixture(scope="session")
def current(stored: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same folder without features, brought up to date by this version, which calls no model for it."""
    folder = tmp_path_factory.mktemp("current") / "copy"
    shutil.copytree(stored.folder, folder)
    workspace = Workspace(folder, copy.deepcopy(stored.config))
    workspace.config["features"]["enabled"] = False
    workspace.run()
    assert workspace.planned() == {}
    return workspace


@pytest.fixture
def after(current: Workspace, tmp_path: Path) -> Callable[..., Workspace]:
    """A copy of it with a changed config."""

    def change(**sections: Any) -> Workspace:
        shutil.copytree(current.folder, tmp_path / "copy")
        config = copy.deepcopy(current.config)
        for section, values in sections.items():
            config[section] = {**config.get(section, {}), **values}
        return Workspace(tmp_path / "copy", config)

    return change


def calls(planned: dict[str, int]) -> dict[str, int]:
    """The jobs that call a model, and those that fit directions."""
    return {rule: count for rule, count in planned.items() if rule in CALLS | {"fit_direction"}}


def test_a_folder_of_version_0_2_needs_no_call_of_a_model(stored: Workspace) -> None:
    planned = stored.planned()
    assert planned
    assert not CALLS & planned.keys()
    assert not {"prepare_model", "prepare_sample", "plan_analysis"} & planned.keys()


# What is steered along a direction, and everything that is steered.
ALONG, STEERED = 8, 14
DESCRIBED = {"describe_experiment", "report_experiment"}
EDITED = {"fit_direction": 3, "steer": ALONG, "score": ALONG}
EVERYTHING = {
    "generate": 36,
    "capture": 36,
    "fit_direction": 3,
    "steer": STEERED,
    "score": STEERED,
}


@pytest.mark.parametrize(
    ("change", "called", "also"),
    [
        ({"workers": {"count": 3, "requests": 7}}, {}, set()),
        ({"deploy": {"min_vram": 24}}, {}, set()),
        ({"dataset": {"samples": 14}}, {"generate": 6, "capture": 6}, {"prepare_sample", "verify"}),
        ({"dataset": {"samples": 8}}, {}, {"tabulate_trajectories", "verify", *DESCRIBED}),
        ({"variants": {"calm": {"text": "All is still."}}}, {"generate": 12, "capture": 12}, DESCRIBED),
        ({"generation": {"max_tokens": 5}}, EVERYTHING, {"plan_analysis", *DESCRIBED}),
        ({"generation": {"allowed_failures": 0.25}}, {}, DESCRIBED),
        ({"prompt": {"system": "Answer."}}, EVERYTHING, {"plan_analysis", *DESCRIBED}),
        ({"model": {"dtype": "bfloat16"}}, EVERYTHING, {"plan_analysis", "prepare_model", *DESCRIBED}),
        ({"experiment": {"seed": 7}}, EVERYTHING, {"plan_analysis", "prepare_sample", *DESCRIBED}),
        ({"capture": {"layers": [15]}}, {"capture": 36, **EDITED}, {"probe_activations", *DESCRIBED}),
        ({"capture": {"dtype": "float32"}}, {"capture": 36, **EDITED}, {"probe_activations", *DESCRIBED}),
        ({"capture": {"hook_points": ["resid_post", "mlp_out"]}}, {"capture": 36, **EDITED}, {"probe_activations"}),
        ({"capture": {"positions": ["last_prompt", "response_last"]}}, {"capture": 36, **EDITED}, {"probe_activations"}),
        ({"analysis": {"margin": 0.2}}, {}, {"analyze_behaviour", "probe_activations", "analyze_steering", *DESCRIBED}),
        ({"probes": {"folds": 3}}, {}, {"probe_activations", "draw_probe_figures", *DESCRIBED}),
        ({"probes": {"shrinkage": 0.2}}, {}, {"probe_activations", *DESCRIBED}),
        ({"steering": {"doses": [0.0, 0.5, 1.0]}}, {"steer": 4, "score": 4}, {"tabulate_steering", *DESCRIBED}),
        ({"steering": {"phases": ["all", "prompt"]}}, {"steer": ALONG, "score": ALONG}, {"tabulate_steering"}),
        ({"steering": {"questions": 3}}, {"steer": 6, "score": 6}, {"tabulate_steering"}),
        ({"steering": {"fit": {"questions": 3}}}, EDITED, {"tabulate_steering", *DESCRIBED}),
        ({"steering": {"scores": {"kl_tokens": 2}}}, {"score": STEERED}, {"tabulate_steering", *DESCRIBED}),
        ({"steering": {"coherence": {"max_perplexity": 9.0}}}, {}, {"analyze_steering", *DESCRIBED}),
    ],
    ids=lambda value: (" ".join(sorted(value)) if isinstance(value, set) else str(value))[:60],
)  # fmt: skip
def test_a_changed_key_calls_a_model_for_what_depends_on_it(
    after: Callable[..., Workspace], change: dict[str, Any], called: dict[str, int], also: set[str]
) -> None:
    planned = after(**change).planned()
    assert calls(planned) == called
    assert also <= planned.keys()
    if not also:
        assert planned == {}


@pytest.mark.parametrize(
    ("features", "called"),
    [
        ({"layer": 14}, {"capture_tokens": 36}),
        ({"dtype": "float32"}, {"capture_tokens": 36}),
        ({"autoencoder": {"width": 4, "k": 1, "steps": 10, "batch_tokens": 64}}, {}),
        ({"chosen": 1, "contexts": 2, "evaluated": 3}, {}),
    ],
)
def test_features_call_a_model_for_other_tokens(
    stored: Workspace, tmp_path: Path, features: dict[str, Any], called: dict[str, int]
) -> None:
    shutil.copytree(stored.folder, tmp_path / "copy")
    workspace = Workspace(tmp_path / "copy", copy.deepcopy(stored.config))
    workspace.config["features"] |= features
    planned = workspace.planned()
    assert {rule: count for rule, count in planned.items() if rule in CALLS} == called


def test_another_reference_makes_its_directions_and_what_is_steered_along_them(after: Callable[..., Workspace]) -> None:
    planned = after(analysis={"references": ["control"]}).planned()
    # Along joy and along its shuffled labels; joy is taken out of joy and of the new reference.
    assert calls(planned) == {"fit_direction": 2, "steer": 2 + 4 + 1, "score": 2 + 4 + 1}


def test_the_order_of_variants_calls_no_model(after: Callable[..., Workspace]) -> None:
    workspace = after()
    workspace.config["variants"] = dict(reversed(workspace.config["variants"].items()))
    planned = workspace.planned()
    assert calls(planned) == {}
    assert planned.keys() >= {"tabulate_trajectories", "probe_activations", *DESCRIBED}


@pytest.mark.parametrize(
    ("lost", "planned"),
    [
        (["model.json"], {"prepare_model", *DESCRIBED}),
        (["analysis_plan.json"], {"plan_analysis", "report_experiment"}),
        (["samples/sum_0002.json"], {"prepare_sample"}),
        (["model.json", "analysis_plan.json"], {"prepare_model", "plan_analysis", *DESCRIBED}),
        (["activations_manifest.json"], {"list_activations", "verify"}),
        (["metadata.json"], DESCRIBED),
    ],
    ids=lambda value: " ".join(sorted(value)),
)
def test_a_lost_file_calls_no_model(after: Callable[..., Workspace], lost: list[str], planned: set[str]) -> None:
    workspace = after()
    for name in lost:
        (workspace.layout.root / name).unlink()
    found = workspace.planned()
    assert calls(found) == {}
    assert planned <= found.keys()


def test_a_lost_direction_is_fitted_and_nothing_steered(after: Callable[..., Workspace]) -> None:
    workspace = after()
    workspace.layout.direction("joy").unlink()
    assert workspace.planned() == {"fit_direction": 1}
    assert "steering/directions/joy.safetensors is missing; it will be made again; 50 answers stay" in workspace.run(
        "-n"
    )


def test_directions_that_come_out_the_same_steer_nothing_again(after: Callable[..., Workspace]) -> None:
    workspace = after()
    paths = [workspace.layout.direction(name) for name in ("joy", "random-01", "shuffled-joy-01")]
    before = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    assert workspace.planned() == {"fit_direction": 3}
    workspace.run()
    assert [path.read_bytes() for path in paths] == before
    assert workspace.planned() == {}


def test_code_that_fits_another_direction_steers_again_by_the_next_run(
    after: Callable[..., Workspace], tmp_path: Path
) -> None:
    workspace = after()
    workspace.code = copy_of_code(tmp_path / "code")
    path = workspace.code / "emoprobe/steering/directions.py"
    fitted = "_differences(grid, direction, stream).mean(0)"
    assert path.read_text().count(fitted) == 1
    path.write_text(path.read_text().replace(fitted, f"-{fitted}"))
    assert calls(workspace.planned()) == {"fit_direction": 3}
    assert "is made again by the next run" in workspace.run()
    # Joy is added to two questions, and taken out of two variants; random and shuffled directions are the same.
    assert calls(workspace.planned()) == {"steer": 6, "score": 6}


def test_a_lost_activation_is_captured_and_nothing_steered(after: Callable[..., Workspace]) -> None:
    workspace = after()
    metadata = workspace.layout.root / "activations"
    fitted = {path.parent.name for path in metadata.glob("joy/*/metadata.json")}
    steered = {path.parent.name for path in (workspace.layout.root / "steering/none").glob("*/*/scores.json")}
    for sample in fitted - steered:
        (metadata / "joy" / sample / "metadata.json").unlink()
    planned = calls(workspace.planned())
    assert planned == {"capture": len(fitted - steered), "fit_direction": 2}
    workspace.layout.model.unlink()
    assert calls(workspace.planned()) == planned


def test_lost_parts_of_steered_answers_are_made_alone(after: Callable[..., Workspace]) -> None:
    workspace = after()
    first, second = sorted((workspace.layout.root / "steering/none/control").glob("*/scores.json"))
    first.unlink()
    second.with_name("agent_state.json").unlink()
    assert calls(workspace.planned()) == {"steer": 1, "score": 2}


def test_changed_code_calls_no_model(after: Callable[..., Workspace], tmp_path: Path) -> None:
    workspace = after()
    workspace.code = copy_of_code(tmp_path / "code")
    for module in ("models/residual.py", "conversations/requests.py", "workflow/triggers.py"):
        with open(workspace.code / "emoprobe" / module, "a") as file:
            file.write("\nCHANGED = True\n")
    assert calls(workspace.planned()) == {}


def test_a_raised_version_makes_its_stage_again(after: Callable[..., Workspace], tmp_path: Path) -> None:
    workspace = after()
    workspace.code = copy_of_code(tmp_path / "code")
    path = workspace.code / "emoprobe/workflow/triggers.py"
    text = path.read_text()
    expected = {
        "sample": EVERYTHING,
        "generate": EVERYTHING | {"steer": ALONG, "score": ALONG},
        "capture": {"capture": 36, **EDITED},
        "steer": {"steer": STEERED, "score": STEERED},
        "score": {"score": STEERED},
    }
    for number, (stage, called) in enumerate(expected.items()):
        # Of another size each, as compiled files are kept by date and size.
        path.write_text(text.replace(f'"{stage}": 1', f'"{stage}": 2') + "#" * number)
        assert calls(workspace.planned()) == called, stage


def test_the_report_of_snakemake_contains_the_page_and_the_tables(after: Callable[..., Workspace]) -> None:
    workspace = after()
    workspace.run("--report", "snakemake.zip")
    with zipfile.ZipFile(workspace.folder / "snakemake.zip") as archive:
        contents = {archive.read(name) for name in archive.namelist()}
    tables = [Path(path) for path in Targets(parse_config(workspace.config), workspace.layout).tables()]
    assert len(tables) > 10
    for path in [workspace.layout.report_html, workspace.layout.report, *tables]:
        assert path.read_bytes() in contents, path.name
