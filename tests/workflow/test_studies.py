"""Studies: many experiments in one plan, on real servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emoprobe import read_table
from tests.conftest import VARIANTS
from tests.workspace import Workspace, jobs_in

TASKS: dict[str, dict[str, Any]] = {
    "sums": {"dataset": {"source": "reasoning_gym:chain_sum", "arguments": {"max_terms": 2, "max_digits": 1}}},
    "words": {"dataset": {"source": "gsm_symbolic"}},
}
PER_EXPERIMENT = 2 * len(VARIANTS)
EACH = (
    *("prepare_model", "plan_analysis", "describe_experiment"),
    *("tabulate_trajectories", "build_explorer", "report_experiment", "verify"),
)


@pytest.fixture
def study(tmp_path: Path, tiny: Callable[[str], Path]) -> Callable[..., Workspace]:
    """A study of tiny models on some data sets, one server at a time."""

    def make(models: tuple[str, ...], tasks: tuple[str, ...] = ("sums",)) -> Workspace:
        base: dict[str, Any] = {
            "dataset": {"samples": 2},
            "variants": VARIANTS,
            "generation": {"max_tokens": 4, "backend": "nnsight"},
            "capture": {"enabled": False},
        }
        axes: dict[str, Any] = {
            "model": {name: {"model": {"source": str(tiny(name))}} for name in models},
            "task": {name: TASKS[name] for name in tasks},
        }
        return Workspace(tmp_path, {"study": {"name": "s"}, "base": base, "grid": axes})

    return make


def test_a_study_is_one_plan(study: Callable[..., Workspace]) -> None:
    workspace = study(("llama", "gpt2"), ("sums", "words"))
    output = workspace.run("-n")
    assert "s: 4 experiments, 24 trajectories of at most 96 new tokens in all; 1 " in output
    planned = jobs_in(output)
    assert planned["generate"] == 4 * PER_EXPERIMENT
    assert [planned[rule] for rule in EACH] == [4] * len(EACH)
    assert planned["tabulate_study"] == planned["report_study"] == 1


def test_a_variant_of_another_experiment_is_told_in_a_line(study: Callable[..., Workspace]) -> None:
    workspace = study(("llama",), ("sums", "words"))
    for name in ("sums", "words"):
        workspace.config["grid"]["task"][name] = {
            **TASKS[name],
            "variants": {"control": {}, f"of_{name}": {"text": "Oh."}},
        }
    output = workspace.run("results/s-llama-sums/of_words/reasoning_gym_0001/trajectory.jsonl", "-n", ok=False)
    refusal = "results/s-llama-sums has no trajectory of_words/reasoning_gym_0001; it has variants: "
    assert f"{refusal}calm, control, frustration, of_sums; samples: " in output, output[-2000:]
    assert "KeyError" not in output


def test_a_study_on_real_servers_works_model_after_model(study: Callable[..., Workspace]) -> None:
    workspace = study(("llama", "gpt2"))
    workspace.run()
    assert workspace.planned() == {}
    results = workspace.folder / "results"
    made = {path: path.read_bytes() for path in results.glob("*/*/*/trajectory.jsonl")}
    assert len(made) == 2 * PER_EXPERIMENT
    contrasts = read_table(results / "s", "study_paired_tests")
    assert set(contrasts["experiment"]) == {"s-llama-sums", "s-gpt2-sums"}
    assert set(contrasts["dataset"]) == {"reasoning_gym:chain_sum"}
    page = (results / "s/report.html").read_text()
    assert all(f"../{name}/report.html" in page for name in set(contrasts["experiment"]))

    # One trajectory that was lost, and what follows from it.
    (results / "s-gpt2-sums/calm/gsm8k_0002/trajectory.jsonl").unlink()
    tables = (*EACH[3:], "analyze_behaviour", "draw_figures")
    across = {"tabulate_study": 1, "report_study": 1}
    assert workspace.planned() == {"generate": 1, **dict.fromkeys(tables, 1), **across}
    workspace.run()
    assert {path: path.read_bytes() for path in made} == made
    assert workspace.planned() == {}

    # Another model plans its own experiment only.
    planned = study(("llama", "gpt2", "qwen3")).planned()
    assert planned == {
        "generate": PER_EXPERIMENT,
        **dict.fromkeys(("prepare_model", "plan_analysis", "describe_experiment", *tables), 1),
        "prepare_sample": 2,
        **across,
    }
