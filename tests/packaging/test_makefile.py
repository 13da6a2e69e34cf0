"""`make`: finds a Python that fits, installs no more than is needed, shows bars on a terminal."""

import os
import pty
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from tests.workspace import ROOT

TOOLS = ("bash", "cat", "grep", "make", "mkdir", "sed", "sh", "test", "touch")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What `make` reads, and a path with nothing on it but the tools that it calls."""
    root = tmp_path / "checkout"
    (root / "emoprobe").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "emoprobe/__init__.py"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "envs", root / "envs")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        if found is not None:
            (tmp_path / "bin" / tool).symlink_to(found)
    return root


def program(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{content}\n")
    path.chmod(0o755)


def make(checkout: Path, *arguments: str, **options: int) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": str(checkout.parent / "bin"), "HOME": str(checkout.parent)}
    return subprocess.run(["make", *arguments], cwd=checkout, env=environment, **options)  # type: ignore[call-overload,no-any-return]


def installed(checkout: Path) -> None:
    """An environment that is complete, whose programs tell how they were called."""
    for name in ("python", "snakemake"):
        program(checkout / ".venv/bin" / name, f'echo "{name} $@"')
    for stamp in ("cpu", "dev"):
        (checkout / ".venv" / f"installed-{stamp}").touch()


def test_a_python_that_does_not_run_or_is_another_is_passed_over(checkout: Path) -> None:
    programs = checkout.parent / "bin"
    program(programs / "python3.11", "exit 127")  # a stub, as version managers put on the path
    program(programs / "python3", f'[ "$1" = -c ] && exit 1; mkdir {checkout}/wrong')
    program(programs / "python", '[ "$1" = -m ] && mkdir -p "$3/bin" && touch "$3/bin/python"; exit 0')
    made = make(checkout, ".venv/bin/python", stderr=subprocess.PIPE)
    assert made.returncode == 0, made.stderr
    assert not (checkout / "wrong").exists()


def test_one_line_says_what_to_install_where_no_python_fits(checkout: Path) -> None:
    program(checkout.parent / "bin/python3", "exit 1")
    made = make(checkout, "env", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert made.returncode
    said = [line for line in made.stderr.decode().splitlines() if not line.startswith("make: ***")]
    assert len(said) == 1
    assert "Python 3.11" in said[0]
    assert "install python3.11" in said[0]


def test_a_config_that_does_not_exist_is_refused_before_anything_is_installed(checkout: Path) -> None:
    made = make(checkout, "run", "CONFIG=config/mien.yaml", stderr=subprocess.PIPE)
    assert made.returncode != 0
    assert b"CONFIG=config/mien.yaml: there is no such file" in made.stderr
    assert not (checkout / ".venv").exists()


def test_a_run_needs_no_development_tools(checkout: Path) -> None:
    installed(checkout)
    (checkout / ".venv/installed-dev").unlink()
    (checkout / "config/studies").mkdir(parents=True)
    (checkout / "config/studies/mine.yaml").touch()
    made = make(checkout, "run", "CONFIG=config/studies/mine.yaml", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert made.returncode == 0
    assert b"dev.txt" not in made.stdout
    assert b"--configfile config/studies/mine.yaml" in made.stdout
    made = make(checkout, "test", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert b"envs/dev.txt" in made.stdout


def test_the_library_is_installed_again_when_its_version_changes(checkout: Path) -> None:
    installed(checkout)
    install = b"--no-deps --editable ."
    assert install in make(checkout, "env", stdout=subprocess.PIPE).stdout
    assert install not in make(checkout, "env", stdout=subprocess.PIPE).stdout
    (checkout / "emoprobe/__init__.py").write_text('__version__ = "99.0.0"\n')
    assert install in make(checkout, "env", stdout=subprocess.PIPE).stdout


def test_what_is_deployed_is_not_forgotten_by_cleaning(checkout: Path) -> None:
    record = checkout / ".snakemake/emoprobe/deployed/host/deployment.json"
    record.parent.mkdir(parents=True)
    record.touch()
    made = make(checkout, "clean", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert made.returncode
    assert b"run make undeploy first" in made.stderr
    assert record.exists()


def test_bars_are_for_terminals(checkout: Path) -> None:
    installed(checkout)
    make(checkout, "env", stdout=subprocess.PIPE)
    plain = make(checkout, "--silent", "run", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert plain.stdout == b"snakemake --workflow-profile profiles/default --configfile config/config.yaml\n"
    ours, theirs = pty.openpty()
    drain = threading.Thread(target=_drain, args=(ours,))
    drain.start()
    try:
        shown = make(checkout, "--silent", "run", stdout=subprocess.PIPE, stderr=theirs)
    finally:
        os.close(theirs)
        drain.join()
        os.close(ours)
    assert shown.stdout.endswith(b" --logger rich emoprobe\n")


@pytest.mark.parametrize(
    ("text", "driver", "expected"),
    [
        ("workers: {count: 1}  # gres: gpu:1\n", False, "cpu"),
        ("workers: {count: 1}\n", True, "cuda"),
        ("workers:\n  slurm:\n    - {gres: gpu:a100:2}\n", False, "cuda"),
        ("workers:\n  slurm:\n    - gres: 'gpu:1'\n", False, "cuda"),
        ('workers: {slurm: [{extra: ["--gpus=2"]}]}\n', False, "cuda"),
        ("workers: {slurm: [{partition: cpu}]}\n", False, "cpu"),
        ("include: [../cluster.yaml]\n", False, "cuda"),
    ],
)
def test_the_environment_fits_what_the_servers_run_on(checkout: Path, text: str, driver: bool, expected: str) -> None:
    (checkout / "config").mkdir()
    (checkout / "config/mine.yaml").write_text(text)
    (checkout / "cluster.yaml").write_text("include: [config/mine.yaml]\nworkers: {slurm: [{gres: gpu}]}\n")
    if driver:
        program(checkout.parent / "bin/nvidia-smi", "exit 0")
    made = make(checkout, "--dry-run", "env", "CONFIG=config/mine.yaml", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert f".venv/bin/python envs/{expected}.txt" in made.stdout.decode(), made.stderr
    overridden = make(checkout, "--dry-run", "env", "HARDWARE=cuda", stdout=subprocess.PIPE)
    assert b"envs/cuda.txt" in overridden.stdout


def test_two_kinds_of_hardware_get_two_environments(checkout: Path) -> None:
    installed(checkout)
    made = make(checkout, "--dry-run", "run", "HARDWARE=cuda", stdout=subprocess.PIPE)
    assert b"--python .venv-cuda/bin/python envs/cuda.txt" in made.stdout
    assert b".venv-cuda/bin/snakemake" in made.stdout
    assert b".venv/bin/snakemake" in make(checkout, "--dry-run", "run", stdout=subprocess.PIPE).stdout


def _drain(terminal: int) -> None:
    try:
        while os.read(terminal, 1024):
            pass
    except OSError:  # nobody writes there any more
        pass
