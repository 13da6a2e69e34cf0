"""Files of a finished experiment that are damaged: named, with what to delete, and made again by the next run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.workflow.pool import end_pool
from tests.workspace import Workspace


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def answer(path: Path) -> None:
    path.write_text(path.read_text().replace("user", "uses", 1))


CHECKED = {
    "calm/gsm8k_0001/trajectory.jsonl": answer,
    "calm/gsm8k_0002/agent_state.json": half,
    "nag/gsm8k_0003/sample.json": half,
    "samples/gsm8k_0004.json": half,
}
SEEN_BY_A_PLAN = {
    "analysis_plan.json": half,
    "model.json": half,
    "report.json": half,
    "verified.json": half,
    "tables/trajectories.parquet": half,
}


def named(text: str) -> set[str]:
    return set(re.findall(r"results/tiny/(\S+?)[ :](?=[^\n]*delete it)", text))


def test_what_is_damaged_is_named_and_made_again(after: Callable[..., Workspace]) -> None:
    workspace = after()
    root = workspace.layout.root
    whole = {path: (root / path).read_bytes() for path in [*CHECKED, *SEEN_BY_A_PLAN]}
    for path, damage in (CHECKED | SEEN_BY_A_PLAN).items():
        date = (root / path).stat().st_mtime_ns
        damage(root / path)
        os.utime(root / path, ns=(date, date))  # what a disk spoils has no new date
    assert named(workspace.run("-n")) == SEEN_BY_A_PLAN.keys()
    try:
        workspace.run("--forcerun", "verify", "--until", "verify", "--retries", "0", ok=False)
        log = (root / "logs/verify.log").read_text()
        # Snakemake has removed the output of the rule itself.
        assert named(log) == {*CHECKED, *SEEN_BY_A_PLAN} - {"verified.json"}, log
        for path in named(log):
            (root / path).unlink()
        workspace.run()
    finally:
        end_pool(workspace.config)
    assert workspace.json("verified.json") == {"checked": 16, "problems": [], "unhashed": 0}
    assert workspace.planned() == {}
    again = {path: (root / path).read_bytes() for path in whole}
    same = [path for path in whole if path not in ("calm/gsm8k_0002/agent_state.json", "nag/gsm8k_0003/sample.json")]
    assert {path for path in same if again[path] != whole[path]} <= {"report.json", "tables/trajectories.parquet"}


@pytest.mark.parametrize(
    ("path", "rule"), [("tables/trajectories.parquet", "analyze_behaviour"), ("model.json", "describe_experiment")]
)
def test_a_rule_that_cannot_read_a_file_names_it(after: Callable[..., Workspace], path: str, rule: str) -> None:
    workspace = after()
    half(workspace.layout.root / path)
    output = workspace.run("--forcerun", rule, "--until", rule, "--retries", "0", ok=False)
    said = output[output.index("What failed, and why:") :]
    assert f"results/tiny/{path} is damaged" in said
    assert "delete it and run again" in said
    assert "Traceback" not in said
