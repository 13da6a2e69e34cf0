"""The check of a machine: each state that breaks a run is one line that says what to do, and the others are ok."""

from __future__ import annotations

import json
import shutil
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from emoprobe.config.experiment import Config
from emoprobe.config.files import Study, parse_config
from emoprobe.conversations.samples import captured_pairs
from emoprobe.models import hardware
from emoprobe.results.activation_folder import METADATA, TENSORS
from emoprobe.results.layout import Layout
from emoprobe.workflow import doctor
from scripts import doctor as script
from server.pool.launcher import LaunchError
from tests import nvidia_smi

VALUES: dict[str, Any] = {
    "model": {"source": "model"},
    "dataset": {"samples": 4},
    "variants": {"control": {}},
    "generation": {"max_tokens": 88},
}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine that is ready: two GPUs, an environment for CUDA, a compiler, a model."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(json.dumps({"num_hidden_layers": 3, "hidden_size": 10}))
    nvidia_smi.install(tmp_path / "bin", monkeypatch, [24564, 24564])
    for name in ("cc", "sbatch", "squeue", "scancel"):
        (tmp_path / "bin" / name).symlink_to("/bin/true")
    (tmp_path / "include").mkdir()
    (tmp_path / "include/Python.h").touch()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(tmp_path / "include"))
    monkeypatch.setattr(hardware, "torch_build", lambda *_: "13.0")
    (tmp_path / "lock").write_text("# a lock\npytest==" + pytest.__version__ + "\n")
    monkeypatch.chdir(tmp_path)
    yield monkeypatch
    monkeypatch.undo()
    nvidia_smi.forget()


def config(**sections: Any) -> Config:
    model = {"source": str(Path("model").absolute())}
    return parse_config({**VALUES, "model": model, **sections})


def examined(*, in_use: bool = False, **sections: Any) -> dict[str, doctor.Finding]:
    study = Study(None, {"one": config(**sections)})
    findings = list(doctor.examine(study, Path("results"), Path("lock"), in_use=in_use))
    assert all(str(each).startswith("ok ") == each.ok for each in findings)
    assert not any("\n" in str(each) for each in findings)
    return {each.subject: each for each in findings}


def wrong(**options: Any) -> list[str]:
    return [str(each) for each in examined(**options).values() if not each.ok]


@pytest.mark.usefixtures("machine")
def test_a_machine_that_is_ready_has_nothing_wrong() -> None:
    found = examined()
    assert [str(each) for each in found.values() if not each.ok] == []
    assert str(found["driver"]) == "ok driver: 580.95.05 for CUDA 13.0"
    assert str(found["GPU 1"]) == "ok GPU 1: A GPU (compute capability 9.0), 25.8 of 25.8 GB free"
    assert "Python.h" in str(found["compiler"])


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ({"driver": "575.57.08"}, "driver: 575.57.08 is too old for CUDA 13.0, which needs 580 or newer; update"),
        ({"capability": "7.0"}, "GPU 0: A GPU (compute capability 7.0): 7.5 is needed; hide it"),
        ({"free": 0.5}, "GPU 0: A GPU (compute capability 9.0): 12.9 of 25.8 GB free; another process uses the rest"),
    ],
)
def test_the_driver_and_each_gpu(
    machine: pytest.MonkeyPatch, tmp_path: Path, gpus: dict[str, Any], expected: str
) -> None:
    nvidia_smi.install(tmp_path / "bin", machine, [24564], **gpus)
    (line,) = wrong()
    assert line.startswith(expected)
    # Nothing is asked of this machine's GPUs where others hold the servers.
    assert wrong(workers={"slurm": [{"gres": "gpu:1"}]}) == []
    endpoints = ["http://other:1/v1"]
    assert wrong(workers={"endpoints": endpoints, "capture_endpoints": ["http://other:2/v1"]}) == []


@pytest.mark.usefixtures("machine")
def test_servers_of_this_plan_may_use_the_gpus(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    nvidia_smi.install(tmp_path / "bin", machine, [24564], free=0.1)
    assert wrong(in_use=True) == []
    machine.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert [line[:42] for line in wrong()] == ["GPUs: CUDA_VISIBLE_DEVICES names none of t"]


def test_a_driver_that_fails(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine.setattr(doctor, "servers_hardware", lambda _: "cuda")
    (tmp_path / "bin/nvidia-smi").write_text("#!/bin/sh\necho 'Failed to initialize NVML' >&2\nexit 9\n")
    assert wrong() == ["driver: nvidia-smi fails (Failed to initialize NVML); repair NVIDIA's driver"]


@pytest.mark.parametrize(
    ("build", "workers", "expected"),
    [
        ("cpu", {}, "has PyTorch for CPUs; install envs/cuda.txt with `make HARDWARE=cuda env`"),
        ("none", {}, "has no PyTorch; install envs/cuda.txt"),
        ("cpu", {"slurm": [{"gres": "gpu:1"}]}, "has PyTorch for CPUs; install envs/cuda.txt"),
        ("13.0", {"slurm": [{"partition": "cpu"}]}, "servers have no GPU, but the environment is for CUDA; run"),
    ],
)
def test_the_environment_fits_the_hardware_of_the_servers(
    machine: pytest.MonkeyPatch, build: str, workers: dict[str, Any], expected: str
) -> None:
    machine.setattr(hardware, "torch_build", lambda *_: build)
    (line,) = wrong(workers=workers)
    assert line.startswith("environment: ")
    assert expected in line


def test_the_compiler_and_the_headers(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine.setenv("PATH", str(tmp_path / "bin"))
    machine.delenv("CC", raising=False)
    (tmp_path / "bin/cc").unlink()
    (tmp_path / "include/Python.h").unlink()
    (line,) = wrong()
    assert line.startswith("compiler: Triton needs a C compiler (install gcc) and")
    assert line.endswith("Python.h (install python3.11-dev)")


@pytest.mark.usefixtures("machine")
def test_the_versions_against_the_lock(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("pytest==0.1\nno-such-package==2\n")
    (line,) = wrong()
    assert line.startswith(f"versions: pytest {pytest.__version__} (lock: 0.1), no-such-package missing (lock: 2); ")
    (tmp_path / "lock").unlink()
    assert wrong() == []


def test_slurm_needs_its_commands(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin/sbatch").unlink()
    machine.setenv("PATH", str(tmp_path / "bin"))
    (line,) = wrong(workers={"slurm": [{"gres": "gpu:1"}]})
    assert line.startswith("SLURM: sbatch not on the path")


@pytest.mark.usefixtures("machine")
def test_planned_activations_are_counted() -> None:
    layout = Layout.of("one", Path("results"))
    # 4 trajectories × 3 layers × 2 hook points × 5 positions × 10 numbers of 2 bytes
    assert doctor.planned_bytes(config(), layout) == 4 * 3 * 2 * 5 * 10 * 2
    some = config(capture={"layers": [1], "positions": "all", "samples": 2, "dtype": "float32"})
    assert doctor.planned_bytes(some, layout) == 2 * 1 * 2 * (512 + 88) * 10 * 4
    assert doctor.planned_bytes(config(capture={"enabled": False}), layout) == 0
    assert doctor.planned_bytes(config(model={"source": "hub/unknown"}), layout) is None
    folder = layout.activations("control", "sum_0001")
    folder.mkdir(parents=True)
    (folder / TENSORS).touch()
    names = [pair[1] for pair in captured_pairs(config())]
    assert len(names) == 4
    folder = layout.activations("control", names[0])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / TENSORS).touch()
    assert doctor.planned_bytes(config(), layout) == 3 * 3 * 2 * 5 * 10 * 2
    stored = {"uri": "s3://bucket/shards/a.tar", "offset": 512, "length": 1000}
    for name, metadata in zip(names[1:], ({"sha256": "a", "stored": stored}, {"sha256": "a"}, {}), strict=True):
        folder = layout.activations("control", name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / METADATA).write_text(json.dumps(metadata))
    assert doctor.planned_bytes(config(), layout) == 2 * 3 * 2 * 5 * 10 * 2  # one is in object storage alone


def test_activations_that_exceed_the_disk(machine: pytest.MonkeyPatch) -> None:
    machine.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    (line,) = wrong()
    assert line.startswith("disk: activations will take 0.0 GB of 0.0 GB free")
    assert "section capture" in line


def test_a_clock_that_is_wrong(machine: pytest.MonkeyPatch) -> None:
    now = time.time()
    machine.setattr(time, "time", lambda: now + 100)
    assert "synchronise both clocks" in wrong()[0]
    machine.setattr(time, "time", lambda: 1000.0)
    assert "set the clock" in wrong()[0]


def test_the_command_prints_each_line_or_only_what_is_wrong(
    machine: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "runtime").mkdir()
    (tmp_path / "config.yaml").write_text(json.dumps({**VALUES, "model": {"source": str(tmp_path / "model")}}))
    machine.setattr(script, "CODE", tmp_path)

    def printed(*arguments: str) -> tuple[int, list[str]]:
        machine.setattr("sys.argv", ["doctor", "--config", str(tmp_path / "config.yaml"), *arguments])
        status = script.main()
        return status, capsys.readouterr().out.splitlines()

    status, lines = printed()
    assert status == 0
    assert all(line.startswith("ok ") for line in lines)
    assert any(line.startswith("ok ports: ") for line in lines)
    assert printed("--short") == (0, [])
    nvidia_smi.install(tmp_path / "bin", machine, [24564], driver="470.1")
    status, lines = printed("--short")
    assert status == 1
    assert [line[:31] for line in lines] == ["doctor: driver: 470.1 is too ol"]
    machine.setattr(script, "free_port", _taken)
    assert any(line.startswith("ports: no port is free; change workers.port") for line in printed()[1])


def _taken(_first: int) -> int:
    raise LaunchError("no port is free")
