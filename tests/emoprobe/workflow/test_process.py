"""The commands of jobs, and the resolved configs that they read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from emoprobe.config.files import study_of
from emoprobe.workflow import process


def test_the_plan_is_named_by_its_content(tmp_path: Path) -> None:
    first = study_of({"experiment": {"name": "a"}})
    second = study_of({"experiment": {"name": "a"}, "workers": {"count": 2}})
    folder = process.plan_folder(first, tmp_path)
    assert folder != process.plan_folder(second, tmp_path)
    process.write_plan(first, folder)
    process.write_plan(first, folder)
    assert json.loads((folder / "a.json").read_text()) == first.configs["a"].resolved()
    assert [path.name for path in folder.iterdir()] == ["a.json"]


def test_a_script_runs_from_any_folder(tmp_path: Path) -> None:
    command = process.script_command(sys.executable, process.code_folder(), "verify")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        f"{command} --help", shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "--experiment" in done.stdout
    wrong = subprocess.run(f"{command}ed", shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert wrong.returncode == 1
    assert "verify" in wrong.stderr


@pytest.mark.parametrize(
    ("gres", "driver", "expected"),
    [(None, False, "cpu"), (None, True, "cuda"), ("gpu:1", False, "cuda"), ("", True, "cpu")],
)
def test_the_environment_is_that_of_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gres: str | None, driver: bool, expected: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if driver:
        (tmp_path / "nvidia-smi").touch(mode=0o755)
    workers = {} if gres is None else {"slurm": [{"gres": gres or None}]}
    assert process.hardware(study_of({"workers": workers}).configs.values()) == expected
