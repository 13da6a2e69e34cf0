"""What a dry run says of GPUs: how servers share them, or why the model does not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emoprobe.config.experiment import Config
from emoprobe.config.files import Study, parse_config
from emoprobe.results.layout import Layout
from emoprobe.workflow.gpu_checks import check_placement, continued, placement_lines
from tests import nvidia_smi
from tests.emoprobe.models.placements import CONFIGS


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """One GPU of 24 GB."""
    nvidia_smi.install(tmp_path / "bin", monkeypatch, [24564])
    yield monkeypatch
    monkeypatch.undo()
    nvidia_smi.forget()


def experiment(folder: Path, model: str, **workers: Any) -> Config:
    shutil.copytree(CONFIGS / model, folder / model, dirs_exist_ok=True)
    return parse_config({"model": {"source": str(folder / model)}, "workers": workers})


@pytest.mark.usefixtures("smi")
def test_the_dry_run_says_how_servers_share_the_gpu_and_why(tmp_path: Path) -> None:
    config = experiment(tmp_path, "Qwen3-8B")
    (line,) = placement_lines(Study(None, {"x": config, "y": config}), tmp_path, tmp_path)
    assert line.startswith(f"GPUs, {config.model.source}: vLLM, then the capture server, on 1 GPU each, vLLM with 0.9")
    assert "both would need" in line
    assert line.endswith("of the usable 23.2 GB")
    assert check_placement(config, tmp_path, tmp_path) == []
    (small,) = placement_lines(Study(None, {"x": experiment(tmp_path, "Qwen3-0.6B")}), tmp_path, tmp_path)
    assert "vLLM and the capture server together" in small


@pytest.mark.usefixtures("smi")
def test_a_model_that_fits_in_no_way_is_refused(tmp_path: Path) -> None:
    (problem,) = check_placement(experiment(tmp_path, "Llama-3.3-70B"), tmp_path, tmp_path)
    assert problem.startswith("model.source: the model does not fit: vLLM needs")
    (forced,) = check_placement(experiment(tmp_path, "Qwen3-8B", gpu_sharing="together"), tmp_path, tmp_path)
    assert "with workers.gpu_sharing: together" in forced


def test_servers_elsewhere_do_not_depend_on_this_machine(tmp_path: Path, smi: pytest.MonkeyPatch) -> None:
    jobs = experiment(tmp_path, "Llama-3.3-70B", slurm=[{"gres": "gpu:4"}])
    assert check_placement(jobs, tmp_path, tmp_path) == []
    (line,) = placement_lines(Study(None, {"x": jobs}), tmp_path, tmp_path)
    assert line == "GPUs: each SLURM job holds one server, with 4 to itself"
    url = ["http://a:1/v1"]
    foreign = experiment(tmp_path, "Llama-3.3-70B", endpoints=url, capture_endpoints=["http://b:1/v1"])
    assert check_placement(foreign, tmp_path, tmp_path) == []
    assert placement_lines(Study(None, {"x": foreign}), tmp_path, tmp_path) == []
    smi.setenv("CUDA_VISIBLE_DEVICES", "")
    assert placement_lines(Study(None, {"x": experiment(tmp_path, "Qwen3-8B")}), tmp_path, tmp_path) == []


def test_a_plan_continues_what_results_were_made_with(tmp_path: Path) -> None:
    config = parse_config({})
    layout = Layout.of("old", tmp_path)
    layout.root.mkdir()
    layout.model.write_text(json.dumps({"source": "m"}))
    found = continued(Study(None, {"old": config, "new": config}), tmp_path).configs
    assert (found["old"].model.dtype, found["old"].generation.engine.max_model_len) == ("float32", 4096)
    assert found["new"] == config
