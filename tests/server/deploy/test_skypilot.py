"""What is asked of SkyPilot, read by its own parser; and what is done with what it launches."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from emoprobe.config.execution.deploy import Deploy
from server.deploy import skypilot
from server.deploy.deployment import PROCESS
from server.deploy.host import HostError
from server.deploy.processes import Process
from tests.workspace import ROOT, wait_for

RENTED = Deploy(backend="skypilot", min_vram=24, max_price=1.5, idle_minutes=20.0)


@pytest.fixture
def environment() -> Path:
    """The environment that has SkyPilot."""
    path = Path(os.environ.get(skypilot.ENVIRONMENT_VARIABLE, ROOT / skypilot.ENVIRONMENT))
    if not (path / "bin/sky").exists():
        pytest.skip(f"no SkyPilot in {path}: {skypilot.INSTALL}, or name its place in {skypilot.ENVIRONMENT_VARIABLE}")
    return path


def parsed(environment: Path, task: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """What SkyPilot's parser makes of a task."""
    path = folder / "task.yaml"
    path.write_text(yaml.safe_dump(task, sort_keys=False))
    script = Path(__file__).with_name("sky_parse.py")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(environment.absolute() / "bin/python"), str(script), str(path), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=300)


def test_its_own_parser_finds_the_gpus_that_fit(environment: Path, tmp_path: Path) -> None:
    done = parsed(environment, skypilot.task("emoprobe-1", RENTED, 1), tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["version"] == "0.14.1"
    by_gpu = {entry["gpu"]: entry for entry in found["resources"]}
    assert set(by_gpu) == {"A10", "H100"}  # enough memory, and NVIDIA's
    for entry in by_gpu.values():
        assert (entry["count"], entry["max"], entry["spot"]) == (1, 1.5, False)
        assert entry["stop"] == [skypilot.AFTER_JOB, True, "jobs"]
    assert by_gpu["A10"]["instances"] == ["gpu_1x_a10"]
    assert by_gpu["H100"]["instances"] == []  # too dear
    assert subprocess.run(["bash", "-n", "-c", found["run"]]).returncode == 0
    assert subprocess.run(["bash", "-n", "-c", found["setup"]]).returncode == 0


def test_its_own_parser_refuses_what_it_does_not_know(environment: Path, tmp_path: Path) -> None:
    task = skypilot.task("emoprobe-1", RENTED, 1)
    task["resources"]["max_price"] = 1.5
    assert parsed(environment, task, tmp_path).returncode != 0


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment whose programs write down what they are asked, and a price that they tell."""
    folder = tmp_path / "sky"
    (folder / "bin").mkdir(parents=True)
    for name, answer in (("sky", ""), ("python", f"cat {folder}/price")):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\necho "{name} $1 $2 $3 $4 $5" | head -n 1 >> {folder}/asked\n{answer}\n')
        program.chmod(0o755)
    monkeypatch.setenv(skypilot.ENVIRONMENT_VARIABLE, str(folder))
    return folder


def test_a_machine_at_its_price_is_taken(fake: Path, tmp_path: Path) -> None:
    (fake / "price").write_text("some warning\n1.29\n")
    assert skypilot.launch("emoprobe-1", RENTED, 2, tmp_path / "place") == 1.29
    assert "NVIDIA:24GB+:2" in (tmp_path / "place/task.yaml").read_text()
    asked = (fake / "asked").read_text().splitlines()
    assert asked[0] == "sky launch --yes --detach-run --cluster emoprobe-1"
    assert len(asked) == 2


def test_one_that_costs_more_than_it_may_is_given_back(fake: Path, tmp_path: Path) -> None:
    (fake / "price").write_text("1.51\n")
    with pytest.raises(HostError, match=r"costs \$1\.51 an hour; deploy\.max_price allows \$1\.5"):
        skypilot.launch("emoprobe-1", RENTED, 1, tmp_path / "place")
    assert (fake / "asked").read_text().splitlines()[-1].strip() == "sky down --yes emoprobe-1"


def test_one_that_does_not_tell_its_price_is_given_back(fake: Path, tmp_path: Path) -> None:
    (fake / "price").write_text("None\n")
    with pytest.raises(HostError, match="does not tell its price"):
        skypilot.launch("emoprobe-1", RENTED, 1, tmp_path / "place")
    assert (fake / "asked").read_text().splitlines()[-1].strip() == "sky down --yes emoprobe-1"


def test_without_skypilot_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(skypilot.ENVIRONMENT_VARIABLE, str(tmp_path))
    with pytest.raises(HostError, match=r"pip install -r envs/skypilot\.txt"):
        skypilot.down("emoprobe-1")


def test_its_job_lasts_as_long_as_the_keeper(tmp_path: Path) -> None:
    run = tmp_path / RENTED.folder / "run"
    run.mkdir(parents=True)
    with subprocess.Popen(["sleep", "1000"]) as keeper:
        process = Process.of(keeper.pid)
        assert process is not None
        process.write(run / PROCESS)
        script = skypilot.task("emoprobe-1", RENTED, 1)["run"].replace("sleep 60", "sleep 0.01")
        job = subprocess.Popen(["bash", "-c", script], env={**os.environ, "HOME": str(tmp_path)})
        try:
            with pytest.raises(subprocess.TimeoutExpired):
                job.wait(2.0)
        finally:
            keeper.kill()
    assert job.wait(60) == 0


def test_the_machine_is_kept_for_the_very_process_that_was_named(tmp_path: Path) -> None:
    program = tmp_path / "a keeper) S 1 ("  # the system tells a process's name as it is
    shutil.copy(shutil.which("sleep") or "", program)
    functions = skypilot.task("emoprobe-1", RENTED.model_copy(update={"folder": str(tmp_path)}), 1)["run"]
    script = functions.partition("left=")[0] + "lives && echo yes || true"
    (tmp_path / "run").mkdir()

    def lives() -> bool:
        return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout == "yes\n"

    assert not lives()
    with subprocess.Popen([program, "1000"]) as keeper:
        process = Process.of(keeper.pid)
        assert process is not None
        process.write(tmp_path / "run" / PROCESS)
        assert lives()
        Process(process.number, process.started + 1).write(tmp_path / "run" / PROCESS)  # its number was used again
        assert not lives()
        process.write(tmp_path / "run" / PROCESS)
        keeper.kill()
        wait_for(lambda: Process.of(process.number) is None, 10, "its end")
        assert not lives()  # what is left of it until its parent asks is no process
