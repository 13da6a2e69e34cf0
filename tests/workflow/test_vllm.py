"""The workflow on real vLLM servers. One pool with two servers serves every test of this module."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from emoprobe.config.files import parse_config
from tests.conftest import PATIENCE, VARIANTS
from tests.workflow.pool import end_pool, server_process, worker_status, workers
from tests.workspace import Workspace, wait_for

WORKERS = {"count": 2, "keep_alive": 1800.0, "kv_cache_gib": 1}


@pytest.fixture(scope="module")
def base(smollm2: Path) -> Iterator[dict[str, Any]]:
    """The config that all tests share a server by; the server ends with the module."""
    config = {
        "experiment": {"name": "real"},
        "model": {"source": str(smollm2)},
        "dataset": {"samples": 4},
        "variants": VARIANTS,
        "generation": {"max_tokens": 24, "engine": {"max_model_len": 2048}},
        "workers": WORKERS,
        "capture": {"enabled": False},
    }
    yield config
    end_pool(config)


@pytest.fixture(scope="module")
def finished(base: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished run of three variants on four samples."""
    workspace = Workspace(tmp_path_factory.mktemp("vllm"), base)
    workspace.output = workspace.run()  # type: ignore[attr-defined]
    return workspace


@pytest.fixture
def fresh(base: dict[str, Any], tmp_path: Path) -> Callable[..., Workspace]:
    """Another folder with the same servers."""

    def make(**sections: Any) -> Workspace:
        config = {**base}
        for section, values in sections.items():
            config[section] = {**config[section], **values}
        return Workspace(tmp_path, config)

    return make


def test_every_pair_has_its_files_and_the_tables_agree(finished: Workspace) -> None:
    layout = finished.layout
    assert len(finished.trajectories()) == 12
    table = pd.read_parquet(layout.table("trajectories"))
    assert len(table) == 12
    accuracy = pd.read_parquet(layout.table("accuracy")).set_index("variant")
    assert list(accuracy.index) == list(VARIANTS)
    for variant in VARIANTS:
        graded = [
            finished.json(variant, sample, "sample.json")["metrics"]["correctness"]
            for sample in table["sample_id"].unique()
        ]
        assert accuracy.loc[variant, "correct"] == sum(graded)
    workers = pd.read_parquet(layout.table("workers"))
    assert set(workers["worker"]) <= {"vllm-0", "vllm-1"}
    assert workers["answered"].sum() == 12
    report = finished.json("report.json")
    assert report["trajectories"] == 12
    output = finished.output  # type: ignore[attr-defined]
    assert "control" in output
    assert "accuracy" in output


def test_stored_tokens_are_those_of_the_chat_template(finished: Workspace, smollm2: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(smollm2)
    for variant in VARIANTS:
        state = finished.json(variant, "gsm8k_0002", "agent_state.json")
        text = tokenizer.apply_chat_template(state["request"]["messages"], add_generation_prompt=True, tokenize=False)
        assert state["prompt_token_ids"] == tokenizer(text, add_special_tokens=False)["input_ids"]
        content = state["response"]["choices"][0]["text"]
        assert tokenizer.decode(state["completion_token_ids"], skip_special_tokens=True) == content
        assert state["usage"]["completion_tokens"] == len(state["completion_token_ids"])


def test_metadata_tells_how_to_run_it_again(finished: Workspace) -> None:
    found = finished.json("metadata.json")
    assert found["experiment_name"] == "real"
    assert found["random_seed"] == 42
    assert found["samples"] == ["gsm8k_0001", "gsm8k_0002", "gsm8k_0003", "gsm8k_0004"]
    assert len(found["model"]["sha256"]) == 64
    assert found["package_versions"]["snakemake"].startswith("9.")
    assert parse_config(finished.json("experiment_config.json")) == parse_config(finished.config)


def test_nothing_is_left_to_do(finished: Workspace) -> None:
    assert finished.planned() == {}


def test_lost_trajectories_come_back_byte_for_byte(finished: Workspace) -> None:
    before = finished.trajectories()
    for path in list(before)[::3]:
        (finished.layout.root / path).unlink()
    assert finished.planned()["generate"] == 4
    finished.run("--until", "generate")
    assert finished.trajectories() == before


def test_sampled_trajectories_come_back_byte_for_byte(fresh: Callable[..., Workspace]) -> None:
    workspace = fresh(experiment={"name": "sampled"}, generation={"temperature": 0.8, "top_p": 0.95})
    workspace.run("--until", "generate")
    before = workspace.trajectories()
    assert len(set(before.values())) == 12
    for path in list(before)[::4]:
        (workspace.layout.root / path).unlink()
    workspace.run("--until", "generate")
    assert workspace.trajectories() == before


def test_a_prompt_that_is_too_long_fails_alone_with_its_reason(fresh: Callable[..., Workspace]) -> None:
    workspace = fresh(
        experiment={"name": "long"}, dataset={"samples": 2}, variants={"endless": {"text": "word " * 4000}}
    )
    output = workspace.run(ok=False)
    assert len(workspace.trajectories()) == 6
    log = (workspace.layout.log("generate", "endless", "gsm8k_0001")).read_text()
    assert "refused the request: status 400" in log
    assert "endless/gsm8k_0001" in log
    assert "maximum" in log or "context" in log or "length" in log
    assert "gsm8k_0001" in output


def test_a_killed_server_costs_and_changes_nothing(base: dict[str, Any], fresh: Callable[..., Workspace]) -> None:
    wait_for(lambda: worker_status(base, "vllm-1")["state"] == "live", PATIENCE, "a second server")
    workspace = fresh(experiment={"name": "killed"}, generation={"max_tokens": 120})
    process = workspace.start("--until", "analyze_behaviour")
    wait_for(lambda: worker_status(base, "vllm-1")["in_flight"] > 0, PATIENCE, "requests at the second server")
    server = server_process(base, "vllm-1")
    assert server is not None
    os.kill(server, signal.SIGKILL)
    assert process.wait(PATIENCE) == 0, (workspace.folder / "snakemake.out").read_text()[-3000:]
    workers = pd.read_parquet(workspace.layout.table("workers")).set_index("worker")
    assert int(workers["failures"]["vllm-1"]) >= 1
    made = workspace.trajectories()
    assert len(made) == 12
    for path in list(made)[::2]:
        (workspace.layout.root / path).unlink()
    workspace.run("--until", "generate")
    assert workspace.trajectories() == made


def test_the_pool_says_what_it_runs(finished: Workspace) -> None:
    first, second = workers(finished.config)
    assert first["state"] == "live"
    assert first["in_flight"] == second["in_flight"] == 0
    assert first["served"] >= 12
    assert second["restarts"] == 1
