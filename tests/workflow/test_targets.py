"""Targets by name and by folder, refused ones, and what a dry run says and leaves."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.workspace import ROOT, Workspace


def test_targets_are_listed(after: Callable[..., Workspace]) -> None:
    listed = dict(line.partition(" ")[::2] for line in after().run("--list-target-rules").splitlines())
    targets = {"all", "trajectories", "activations", "tables", "figures", "report", "explorer"}
    assert targets <= set(listed)
    assert all(listed[name].strip("()") for name in targets)


def test_a_folder_is_a_target(after: Callable[..., Workspace]) -> None:
    workspace = after()
    root = workspace.layout.root
    for folder in ("results/tiny/calm", "results/tiny/calm/gsm8k_0003"):
        assert workspace.planned(folder) == {}
    shutil.rmtree(root / "calm/gsm8k_0003")
    (root / "calm/gsm8k_0004/sample.json").unlink()
    (root / "nag/gsm8k_0001/sample.json").unlink()
    planned = workspace.planned("results/tiny/calm/")
    assert planned == {"generate": 2}
    assert workspace.planned("results/tiny/calm/gsm8k_0003") == {"generate": 1}
    workspace.run("results/tiny/calm/gsm8k_0003")
    assert (root / "calm/gsm8k_0003/trajectory.jsonl").exists()
    assert not (root / "calm/gsm8k_0004/sample.json").exists()
    assert workspace.planned("trajectories") == {"generate": 2, "trajectories": 1}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("results/tiny/calm/other_0001/trajectory.jsonl", "it has variants: calm, control, frustration, nag; samples: gsm8k"),
        ("results/tiny/calm/gsm8k_0001-d2/trajectory.jsonl", "no trajectory calm/gsm8k_0001-d2"),
        ("results/tiny/quiet/gsm8k_0001/trajectory.jsonl", "no trajectory quiet/gsm8k_0001"),
        ("results/tiny/samples/gsm8k_0005.json", "no sample gsm8k_0005"),
        ("results/tiny/activations/calm/gsm8k_0001/metadata.json", "capture.enabled is false"),
        ("results/tiny/steering/none/control/gsm8k_0001/trajectory.jsonl", "steering.enabled is false"),
        ("results/tiny/tables/steering.parquet", "nothing that tabulate_steering makes"),
        ("results/tiny/calm/gsm8k_0005", "no trajectory calm/gsm8k_0005"),
    ],
)  # fmt: skip
def test_what_the_config_does_not_contain_is_refused(after: Callable[..., Workspace], target: str, words: str) -> None:
    assert words in after().run("-n", target, ok=False)


def test_a_dry_run_says_why_in_groups_and_by_file(after: Callable[..., Workspace]) -> None:
    workspace = after(variants={"frustration": {"text": "Not again!", "valence": "negative"}})
    (workspace.layout.pair("calm", "gsm8k_0003") / "sample.json").unlink()
    output = workspace.run("-n")
    assert "  4 generate: variant changed (variant frustration)\n" in output
    assert "  1 generate: missing output (variant calm)\n" in output
    assert "results/tiny/frustration/gsm8k_0002/trajectory.jsonl" not in output
    files = workspace.run("-n", "--quiet", "host")
    assert "results/tiny/frustration/gsm8k_0002/trajectory.jsonl" in files
    assert "reason: Missing output files: results/tiny/calm/gsm8k_0003/sample.json" in files


def test_a_dry_run_leaves_no_folder(tmp_path: Path) -> None:
    for name in ("steering", "study"):
        folder = tmp_path / name
        shutil.copytree(ROOT / ".test", folder)
        workspace = Workspace(folder, yaml.safe_load((folder / "config" / f"{name}.yaml").read_text()))
        command = workspace.command("-n")
        command[command.index("--configfile") + 1] = str(folder / "config" / f"{name}.yaml")
        command[command.index("--snakefile") + 1] = str(ROOT / "workflow/Snakefile")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "generate: missing output" in done.stdout
        left = {path.name for path in folder.iterdir()} - {"config.yaml"}
        assert left == {"config", ".snakemake"}
        assert {path.name for path in (folder / ".snakemake/emoprobe").iterdir()} == {"checks.json", "code.json"}


def test_printed_commands_can_be_pasted(after: Callable[..., Workspace]) -> None:
    """The one of a request and the one of a script, in a shell that knows nothing of the workflow."""
    workspace = after()
    trajectory = workspace.layout.pair("calm", "gsm8k_0003") / "trajectory.jsonl"
    before = trajectory.read_bytes()
    trajectory.unlink()
    output = workspace.run("-n", "-p", "--quiet", "host")
    commands = [line for line in output.splitlines() if line.startswith("Shell command: ")] or output.splitlines()
    lines = [line.removeprefix("Shell command: ").strip() for line in commands]
    ask = next(line for line in lines if "server/pool/ask.py" in line and "gsm8k_0003" in line)
    script = next(line for line in lines if "scripts tabulate_trajectories" in line)
    table = workspace.layout.table("trajectories")
    table.unlink()
    for line in (ask, script):
        done = subprocess.run(["env", "-i", "PATH=/usr/bin:/bin", "bash", "-c", line], cwd=workspace.folder, capture_output=True, text=True)  # fmt: skip
        log = workspace.folder / shlex.split(line.split("> ")[-1])[0]
        assert done.returncode == 0, done.stderr + log.read_text()
    assert trajectory.read_bytes() == before
    assert table.exists()


def test_snakemakes_report_has_the_page_and_the_tables(after: Callable[..., Workspace]) -> None:
    """What is flagged, as the report itself needs the network: every table, figure and page of the experiment."""
    workspace = after()
    listing = workspace.folder / "flagged.smk"
    listing.write_text(
        "from snakemake.io import is_flagged\n"
        f'include: "{ROOT / "Snakefile"}"\n'
        "for each in workflow.rules:\n"
        "    for path in each.output:\n"
        '        if is_flagged(path, "report"):\n'
        '            print("FLAGGED", strip_wildcard_constraints(path))\n'
    )
    command = workspace.command("--list-target-rules")
    command[command.index("--snakefile") + 1] = str(listing)
    done = subprocess.run(command, cwd=workspace.folder, capture_output=True, text=True)
    flagged = {line.removeprefix("FLAGGED ").replace("{experiment}", "tiny") for line in done.stdout.splitlines() if line.startswith("FLAGGED")}  # fmt: skip
    root = Path("results/tiny")
    made = {root / path.relative_to(workspace.layout.root) for path in workspace.layout.root.glob("*/*.parquet")}
    made |= {root / path.relative_to(workspace.layout.root) for path in workspace.layout.root.glob("figures/*.svg")}
    assert len(made) > 5
    assert {*map(str, made), "results/tiny/report.html", "results/tiny/report.json"} <= flagged, done.stderr
