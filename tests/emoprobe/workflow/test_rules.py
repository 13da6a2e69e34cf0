"""The rules themselves: each that computes numbers says so with a digest of its code or with the version of a stage."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from emoprobe.workflow import code, triggers
from tests.workspace import ROOT

# Stages by rule; every raised one makes all files of the rule again.
STAGED = {
    "prepare_model": {"model"},
    "prepare_judge_model": {"model"},
    "prepare_sample": {"sample"},
    "generate": {"model", "sample", "generate"},
    "generate_and_capture": {"model", "sample", "generate"},
    "plan_analysis": {"model", "sample", "generate"},
    "outcomes": {"outcomes"},
    "judge": {"judge"},
    "capture": {"capture"},
    "capture_tokens": {"tokens"},
    "steer": {"model", "sample", "steer"},
    "score": {"score"},
}
# Rules that compute no number.
EXEMPT = {
    "describe_experiment": "writes the configuration and the versions of packages",
    "list_activations": "lists files with their hashes",
    "list_answers_to_label": "lists answers in an order that follows from a hash",
    "verify": "compares files with each other and says what is wrong",
    "push_activations": "copies bytes, and compares their hashes",
    "pull_activations": "copies bytes, and compares their hashes",
    **dict.fromkeys(
        ("all", "trajectories", "activations", "tables", "figures", "report", "explorer"), "only names files"
    ),
}
# Only read the configuration, the questions and the model, which are parameters or inputs of the rules.
READS = {"emoprobe.config.files", "emoprobe.steering.drawn"}


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The rules of an experiment with everything in it, by name."""
    folder = tmp_path_factory.mktemp("rules")
    config = {
        "experiment": {"name": "rules"},
        "dataset": {"samples": 16},
        "variants": {
            "control": {},
            "filler": {"texts": [f"There are {n} trees." for n in range(8)]},
            "joy": {"texts": [f"Wonderful, {n} times!" for n in range(8)], "valence": "positive"},
        },
        "graders": [
            "number",
            "logprob",
            {"name": "judge", "label": "polite", "rubric": "Polite?", "model": "org/m"},
        ],
        "capture": {"layers": "all", "hook_points": ["resid_post"], "positions": ["last_prompt"]},
        "steering": {"enabled": True, "layers": [15]},
        "features": {"enabled": True, "layer": 15},
        "workers": {"endpoints": ["http://127.0.0.1:9"], "capture_endpoints": ["http://127.0.0.1:9"]},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    done = subprocess.run(
        [sys.executable, "-m", "tests.emoprobe.workflow.evaluated_rules", str(folder / "config.yaml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_rule_has_a_digest_or_a_version_or_computes_nothing(rules: dict[str, dict[str, Any]]) -> None:
    for name, rule in rules.items():
        params = "\n".join(rule["params"])
        has_code = "code emoprobe" in params
        stages = set(re.findall(r"stage (\w+) 2", params))
        assert stages == STAGED.get(name, set()), name
        assert has_code or stages or name in EXEMPT, f"{name} has neither a digest of its code nor a stage"
        assert not (has_code and stages), name
    assert set(STAGED) | set(EXEMPT) <= set(rules)
    assert set().union(*STAGED.values()) | {"capture"} == set(triggers.STAGES)


def test_a_digest_covers_what_the_script_of_its_rule_imports(rules: dict[str, dict[str, Any]]) -> None:
    checked = set()
    for rule in rules.values():
        script = re.search(r"/scripts'? (\w+)$", "\n".join(rule["params"]), re.MULTILINE)
        modules = [module for param in rule["params"] for module in param.split() if module.startswith("emoprobe.")]
        if script is None or not modules:
            continue
        covered = code.closure(*modules)
        for module in _imported_by(ROOT / f"scripts/{script[1]}.py"):
            if module not in READS and not any(f"{module}.".startswith(f"{name}.") for name in code.EXCLUDED):
                assert f"{module.replace('.', '/')}.py" in covered, module
                checked.add(module)
    assert len(checked) > len(triggers.CODE)


def test_a_raised_version_changes_nothing_but_its_stage() -> None:
    assert triggers.versioned("abc", *triggers.STAGES) == "".join(
        ["abc", *(f" stage {name} {version}" for name, version in triggers.STAGES.items() if version > 1)]
    )


def _imported_by(script: Path) -> list[str]:
    """The modules of the library that a script imports."""
    found = []
    for node in ast.walk(ast.parse(script.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("emoprobe."):
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            inside = [name for name in submodules if (ROOT / f"{name.replace('.', '/')}.py").exists()]
            package = (ROOT / str(node.module).replace(".", "/")).is_dir()
            found += inside or [f"{node.module}.__init__" if package else str(node.module)]
    return found
