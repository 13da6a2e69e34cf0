"""Studies: many experiments in one plan, on stub servers and on real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emoprobe import read_table
from tests.conftest import VARIANTS, StubServer
from tests.workspace import Workspace

AXES = {
    "model": {"llama": {}, "gpt2": {}},
    "task": {
        "sums": {"dataset": {"source": "reasoning_gym:chain_sum", "arguments": {"max_terms": 2, "max_digits": 1}}},
        "words": {"dataset": {"source": "gsm_symbolic"}},
    },
}
PER_EXPERIMENT = 2 * len(VARIANTS)


@pytest.fixture
def study(tmp_path: Path, tiny: Callable[[str], Path]) -> Callable[..., Workspace]:
    """A study of tiny models on two data sets; keyword arguments are sections of its base."""

    def make(models: tuple[str, ...] = ("llama", "gpt2"), **sections: Any) -> Workspace:
        base: dict[str, Any] = {
            "dataset": {"samples": 2},
            "variants": VARIANTS,
            "generation": {"max_tokens": 8},
            "capture": {"enabled": False},
            **sections,
        }
        axes = {**AXES, "model": {name: {"model": {"source": str(tiny(name))}} for name in models}}
        return Workspace(tmp_path, {"study": {"name": "s"}, "base": base, "grid": axes})

    return make


def test_a_study_is_one_plan(study: Callable[..., Workspace], stub: Callable[..., StubServer]) -> None:
    workers = {"endpoints": [stub().url], "model_name": "stub"}
    workspace = study(workers=workers)
    output = workspace.run("-n")
    assert "s: 4 experiments, 24 trajectories of at most 192 new tokens in all; 1 endpoint" in output
    workspace.run()
    assert workspace.planned() == {}
    results = workspace.folder / "results"
    contrasts = read_table(results / "s", "study_paired_tests")
    assert set(contrasts["experiment"]) == {"s-llama-sums", "s-llama-words", "s-gpt2-sums", "s-gpt2-words"}
    assert set(contrasts["dataset"]) == {"reasoning_gym:chain_sum", "gsm_symbolic"}
    page = (results / "s/report.html").read_text()
    assert all(f"../{name}/report.html" in page for name in set(contrasts["experiment"]))

    # One trajectory that was lost, and what follows from it.
    lost = results / "s-gpt2-sums/calm/gsm8k_0002/trajectory.jsonl"
    before = lost.read_bytes()
    lost.unlink()
    planned = workspace.planned()
    assert planned["generate"] == 1
    assert planned["tabulate_trajectories"] == 1
    assert planned["tabulate_study"] == 1
    workspace.run()
    assert lost.read_bytes() == before

    # Another model plans its own experiments only.
    more = study(("llama", "gpt2", "qwen3"), workers=workers)
    planned = more.planned()
    assert planned["generate"] == 2 * PER_EXPERIMENT
    assert planned["prepare_model"] == planned["report_experiment"] == 2


def test_a_study_on_real_servers_works_model_after_model(study: Callable[..., Workspace]) -> None:
    workspace = study(generation={"max_tokens": 4, "backend": "nnsight"}, capture={"enabled": False})
    workspace.run("--until", "generate", "generate_and_capture")
    made = workspace.folder.glob("results/*/*/*/trajectory.jsonl")
    assert len(list(made)) == 4 * PER_EXPERIMENT
