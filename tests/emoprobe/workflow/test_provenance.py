"""What is written down about how an experiment was run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emoprobe.config.files import parse_config
from emoprobe.models.source import ModelCard
from emoprobe.workflow.provenance import experiment_metadata

CARD = ModelCard("some/model", "/models/some", "abc", "0" * 64, 2048)


def described(tmp_path: Path, sections: dict[str, Any]) -> dict[str, Any]:
    return experiment_metadata(parse_config({"variants": {"control": {}}, **sections}), CARD, tmp_path)


def test_the_engine_is_described_whole(tmp_path: Path) -> None:
    engine = {"max_model_len": 512, "tensor_parallel": 2, "compile": False, "extra_args": ["--seed-of-kernels=1"]}
    found = described(
        tmp_path, {"model": {"dtype": "float32"}, "generation": {"engine": engine}, "workers": {"requests": 7}}
    )
    assert found["vllm_config"] == {"dtype": "float32", "max_num_seqs": 7, "batch_invariant": "auto", **engine}


def test_the_servers_that_generate_are_counted(tmp_path: Path) -> None:
    here, there = "http://a:1/v1", "http://b:2/v1"
    servers = {"endpoints": [here, there], "capture_endpoints": ["http://c:3/v1"], "count": 4}
    assert described(tmp_path, {"workers": servers})["workers"]["count"] == 2
    inside = {"generation": {"backend": "nnsight"}, "workers": {"capture_endpoints": [there]}}
    found = described(tmp_path, inside)["workers"]
    assert (found["count"], found["endpoints"], found["capture_endpoints"]) == (1, [], [there])
    assert described(tmp_path, {"workers": {"count": 4}})["workers"]["count"] == 4
