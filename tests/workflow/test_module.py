"""Emoprobe as a module of another workflow, in another folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import emoprobe
from tests.conftest import StubServer
from tests.copies.copy import Order
from tests.workspace import ROOT, Workspace, finish

OUTER = """
configfile: "outer.yaml"

module emoprobe:
    snakefile: "{snakefile}"
    config: config["tones"]

use rule * from emoprobe as emoprobe_*

rule all:
    default_target: True
    input:
        rules.emoprobe_all.input,  # else a lost file would be made again only for a target that is stale
        "words.txt",

rule count_words:
    input:
        "results/tiny/tables/trajectories.parquet",
    output:
        "words.txt",
    shell:
        "ls {{input}} | wc -l > {{output}}"
"""
TWO = """
configfile: "outer.yaml"

module first:
    snakefile: "{snakefile}"
    config: config["first"]
    prefix: "one"

module second:
    snakefile: "{snakefile}"
    config: config["second"]
    prefix: "two"

use rule * from first as first_*
use rule * from second as second_*

rule all:
    default_target: True
    input: rules.first_all.input, rules.second_all.input, "words.txt"

rule count_words:
    input:
        "one/results/tiny/tables/trajectories.parquet",
    output:
        "words.txt",
    shell:
        "ls {{input}} | wc -l > {{output}}"
"""
# Prints what loading the Snakefile, as it is and as a module, changes in the process.
WATCH = """
import gc, os, sys, types
from pathlib import Path
import snakemake.cli, snakemake.api, snakemake.scheduling.job_scheduler, snakemake.executors.local, snakemake.persistence.file
import snakemake.rules, snakemake.jobs, snakemake.output_index, snakemake.common, snakemake.logging
from snakemake.api import SnakemakeApi
from snakemake.settings.types import ConfigSettings, OutputSettings, ResourceSettings, StorageSettings

def state():
    found = {}
    for name, module in sorted(sys.modules.items()):
        if name == "snakemake" or name.startswith(("snakemake.", "snakemake_interface")):
            for key, value in vars(module).items():
                if isinstance(value, (type, types.FunctionType)):
                    found[name, key] = id(value)
                if isinstance(value, type) and value.__module__ == name:
                    found |= {(name, key, attribute): id(member) for attribute, member in vars(value).items()}
    return found, gc.get_threshold(), gc.isenabled(), dict(os.environ), {n: id(s) for n, s in vars(subprocess).items()}

import subprocess
before = state()
with SnakemakeApi(OutputSettings(dryrun=True)) as api:
    workflow = api.workflow(
        resource_settings=ResourceSettings(cores=1), snakefile=Path(sys.argv[1]), storage_settings=StorageSettings(),
        config_settings=ConfigSettings(configfiles=[Path(path) for path in sys.argv[2:]]),
    )._workflow
    rules = [rule.name for rule in workflow.rules]
after = state()
assert any(name.endswith("generate") for name in rules), rules
changed = {key for key in before[0] if after[0].get(key) != before[0][key]}
print("changed:", sorted(changed), before[1:] == after[1:], file=sys.stderr)
sys.exit(bool(changed) or before[1:] != after[1:])
"""


def outer_folder(folder: Path, text: str, config: dict[str, Any]) -> Callable[..., str]:
    """Write a workflow into a folder; return a function that runs it."""
    folder.mkdir()
    (folder / "outer.yaml").write_text(yaml.safe_dump(config))
    (folder / "Snakefile").write_text(text.format(snakefile=ROOT / "Snakefile"))

    def run(*arguments: str) -> str:
        done = finish(Order("snakemake", ["--cores", "8", *arguments], str(folder), dict(os.environ)))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def assert_made(root: Path, run: Callable[..., str]) -> None:
    """Check that an experiment is complete, and that a lost answer of it comes back."""
    made = sorted(root.glob("*/*/trajectory.jsonl"))
    assert len(made) == 3 * 4
    assert (root / "report.html").exists()
    assert "Nothing to be done" in run("-n")
    before = made[0].read_bytes()
    made[0].unlink()
    run()
    assert made[0].read_bytes() == before
    assert "Nothing to be done" in run("-n")


def test_a_workflow_uses_another(
    tmp_path: Path, workspace: Callable[..., Workspace], stub: Callable[..., StubServer]
) -> None:
    """Without this project's profile and plugins."""
    run = outer_folder(tmp_path / "outer", OUTER, {"tones": workspace(stub()).config, "other": 1})
    run()
    assert_made(tmp_path / "outer/results/tiny", run)
    # Requests stay where the pool is, whatever the module is called.
    commands = run("-n", "--forceall", "-p")
    assert "localrule emoprobe_generate" in commands or "rule emoprobe_generate" in commands


def test_two_instances_below_prefixes_follow_their_own_config(
    tmp_path: Path, workspace: Callable[..., Workspace], stub: Callable[..., StubServer]
) -> None:
    config = workspace(stub()).config
    margins = {"first": 0.05, "second": 0.3}
    configs = {name: {**config, "analysis": {"margin": margin}} for name, margin in margins.items()}
    run = outer_folder(tmp_path / "outer", TWO, configs)
    run()
    for prefix, margin in (("one", 0.05), ("two", 0.3)):
        root = tmp_path / "outer" / prefix / "results/tiny"
        assert json.loads((root / "experiment_config.json").read_text())["analysis"]["margin"] == margin
        assert f'"margin": {margin}' in (root / "analysis_plan.json").read_text()
        assert_made(root, run)
    assert not (tmp_path / "outer/results/tiny").exists()


@pytest.mark.parametrize("text", [None, TWO])
def test_loading_the_snakefile_changes_nothing_in_the_process(
    tmp_path: Path, workspace: Callable[..., Workspace], text: str | None
) -> None:
    here = workspace()
    config = {**here.config, "workers": {"endpoints": ["http://127.0.0.1:9"], "model_name": "stub"}}
    if text is None:
        here.config, folder = config, here.folder
        arguments = [str(ROOT / "Snakefile"), str(here.write_config())]
    else:
        folder = tmp_path / "outer"
        outer_folder(folder, text, {"first": config, "second": config})
        arguments = [str(folder / "Snakefile")]
    done = subprocess.run(
        [sys.executable, "-c", WATCH, *arguments], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "changed: [] True" in done.stderr


@pytest.fixture
def hosted(tmp_path: Path) -> Path:
    """A repository with this project's tracked files, as a hosting service would have it, and its clone in a cache."""
    bare = tmp_path / "cache/snakemake/snakemake/source-cache/snakemake-git-cache/github.com/somebody/emoprobe"
    work = tmp_path / "work"
    work.mkdir()
    files = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "Snakefile", "rules", "envs", "emoprobe/report"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout.decode().split("\0")  # fmt: skip
    for name in filter(None, files):
        if (ROOT / name).is_file():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes((ROOT / name).read_bytes())
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"], ["tag", "v1"]):
        subprocess.run([*git, *command], cwd=work, check=True)
    bare.parent.mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", "--bare", str(work), str(bare)], check=True)
    return tmp_path / "cache"


@pytest.mark.parametrize("version", [emoprobe.__version__, "9.9.9"])
def test_it_loads_from_a_hosting_service(
    tmp_path: Path, hosted: Path, workspace: Callable[..., Workspace], version: str
) -> None:
    """The clone that Snakemake would download is in its cache already; the library is the installed one."""
    text = OUTER.replace('"{snakefile}"', 'github("somebody/emoprobe", path="Snakefile", tag="v1")')
    config = {**workspace().config, "workers": {"endpoints": ["http://127.0.0.1:9"], "model_name": "stub"}}
    outer_folder(tmp_path / "outer", text, {"tones": config})
    script = f"import emoprobe; emoprobe.__version__ = {version!r}; import snakemake.cli; snakemake.cli.main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "-n", "--cores", "1"], cwd=tmp_path / "outer", capture_output=True, text=True,
        env={**os.environ, "XDG_CACHE_HOME": str(hosted), "PYTHONPATH": str(ROOT)}, timeout=300,
    )  # fmt: skip
    output = done.stdout + done.stderr
    if version == emoprobe.__version__:
        assert done.returncode == 0, output
        assert "emoprobe_generate" in output
    else:
        assert done.returncode != 0
        assert f"needs emoprobe {emoprobe.__version__}, and the package in this environment is 9.9.9" in output
