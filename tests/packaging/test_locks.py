"""The locks, and what installs them."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from scripts.lock import ENVS, conda_file, deploy_script, packages
from tests.workspace import ROOT

LOCKS = {name: packages((ENVS / f"{name}.txt").read_text()) for name in ("cpu", "cuda", "dev")}
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower() for line in requirements}


def test_they_pin_every_package() -> None:
    for lock in LOCKS.values():
        assert all("==" in line and " @ " not in line for line in lock.values())


def test_a_run_installs_no_development_tools() -> None:
    for hardware in ("cpu", "cuda"):
        assert names(EXTRAS["dev"]) & set(LOCKS[hardware]) <= {"openai"}  # which vLLM needs
        assert names(EXTRAS["workflow"]) - {"emoprobe"} <= set(LOCKS[hardware])
        assert names(EXTRAS["server"]) <= set(LOCKS[hardware])
    assert names(EXTRAS["dev"]) <= {*LOCKS["dev"], *LOCKS["cpu"]}


def test_tests_run_with_the_versions_of_a_run() -> None:
    assert not set(LOCKS["dev"]) & set(LOCKS["cpu"])
    shared = set(LOCKS["dev"]) & set(LOCKS["cuda"])
    assert {LOCKS["dev"][name] for name in shared} == {LOCKS["cuda"][name] for name in shared}


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_the_conda_environments_are_current(name: str) -> None:
    assert (ENVS / f"{name}.yaml").read_text() == conda_file(name), "run make lock"
    assert (ENVS / f"{name}.post-deploy.sh").read_text() == deploy_script(name), "run make lock"


def fake_python(folder: Path, first_status: int) -> Path:
    """A `python` that writes down its arguments; its first run ends with a status, the others with 0."""
    folder.mkdir()
    record = folder / "record"
    script = folder / "python"
    script.write_text(
        f'#!/bin/bash\necho "$@" >>{record}\ncp "${{@: -1}}" {folder}/lock 2>/dev/null\n[ "$(wc -l <{record})" -gt 1 ] || exit {first_status}\n'
    )
    script.chmod(0o755)
    return record


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_conda_installs_the_lock_itself(tmp_path: Path, name: str) -> None:
    record = fake_python(tmp_path / "bin", 0)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    script = tmp_path / "copied-elsewhere.sh"  # as Snakemake does
    script.write_text((ENVS / f"{name}.post-deploy.sh").read_text())
    subprocess.run(["bash", script], cwd=tmp_path, env={**os.environ, "PATH": path}, check=True)
    (command,) = record.read_text().splitlines()
    assert command.startswith("-m pip install ")
    assert "--no-deps" in command
    assert (tmp_path / "bin/lock").read_text() == (ENVS / f"{name}.txt").read_text()


def test_pytorch_s_own_index_is_asked_only_where_the_others_do_not_have_it(tmp_path: Path) -> None:
    record = fake_python(tmp_path / "bin", 1)
    install = [str(ENVS / "install.sh"), "--python", str(tmp_path / "bin/python"), str(ENVS / "cpu.txt")]
    subprocess.run(install, check=True)
    first, second = record.read_text().splitlines()
    assert "download.pytorch.org" not in first
    assert second == f"{first} --extra-index-url https://download.pytorch.org/whl/cpu"
