"""Emoprobe as a module of another workflow, in another folder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import StubServer
from tests.workspace import ROOT, Workspace

OUTER = """
configfile: "outer.yaml"

module emoprobe:
    snakefile: "{snakefile}"
    config: config["tones"]
{prefix}

use rule * from emoprobe as emoprobe_*

rule all:
    default_target: True
    input:
        rules.emoprobe_all.input,  # else a lost file would be made again only for a target that is stale
        "words.txt",

rule count_words:
    input:
        "{results}/tiny/tables/trajectories.parquet",
    output:
        "words.txt",
    shell:
        "ls {{input}} | wc -l > {{output}}"
"""


@pytest.fixture
def outer(
    tmp_path: Path, workspace: Callable[..., Workspace], stub: Callable[..., StubServer]
) -> Callable[[str], Callable[..., str]]:
    """An outer workflow by the prefix that it gives; returns a function that runs it."""

    def make(prefix: str) -> Callable[..., str]:
        folder = tmp_path / "outer"
        folder.mkdir()
        config: dict[str, Any] = workspace(stub()).config
        (folder / "outer.yaml").write_text(yaml.safe_dump({"tones": config, "other": 1}))
        text = OUTER.format(
            snakefile=ROOT / "Snakefile",
            prefix=f'    prefix: "{prefix}"' if prefix else "",
            results=f"{prefix}/results" if prefix else "results",
        )
        (folder / "Snakefile").write_text(text)

        def run(*arguments: str) -> str:
            command = [sys.executable, "-m", "snakemake", "--cores", "8", "--resources", "cpus=2", *arguments]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=500)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout + done.stderr

        return run

    return make


@pytest.mark.parametrize("prefix", ["", "inner"])
def test_a_workflow_uses_another(outer: Callable[[str], Callable[..., str]], tmp_path: Path, prefix: str) -> None:
    run = outer(prefix)
    run()
    root = tmp_path / "outer" / prefix / "results/tiny"
    made = sorted(root.glob("*/*/trajectory.jsonl"))
    assert len(made) == 3 * 4
    assert (root / "report.html").exists()
    assert not prefix or not (tmp_path / "outer/results/tiny").exists()
    assert "Nothing to be done" in run("-n")
    before = made[0].read_bytes()
    made[0].unlink()
    run()
    assert made[0].read_bytes() == before
    assert "Nothing to be done" in run("-n")
