"""Results folders of the first version are read."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from emoprobe import load_activations, load_config, load_trajectories, read_table
from tests.workspace import ROOT

FOLDER = ROOT / "tests/fixtures/first_version"
POINT = "input_layernorm.output"


def test_trajectories() -> None:
    table = load_trajectories(FOLDER)
    assert sorted(table["variant"].unique()) == ["control", "encouragement", "frustration"]
    assert len(table) == 12
    recorded = read_table(FOLDER, "trajectories").set_index(["variant", "sample_id"])
    found = table.set_index(["variant", "sample_id"]).loc[recorded.index]
    for column in ("question", "gold", "completion", "completion_tokens", "prompt_tokens", "truncated", "valence"):
        assert found[column].astype("string").tolist() == recorded[column].astype("string").tolist(), column


@pytest.mark.parametrize("position", ["last_prompt", "response_mean"])
def test_activations(position: str) -> None:
    found = load_activations(FOLDER, POINT, position)
    assert found.layers == [4, 29]
    for row, variant, sample in zip(found.values, found.index["variant"], found.index["sample_id"], strict=True):
        stored = load_file(FOLDER / "activations" / variant / sample / "activations.safetensors")[POINT]
        assert np.array_equal(row, stored[:, ["last_prompt", "response_mean"].index(position)].astype(np.float32))


def test_keys_that_have_moved() -> None:
    config = load_config(FOLDER)
    assert config.generation.engine.max_model_len == 1024
    assert config.workers.timeout == 300
    assert config.workers.batch_tokens == 2048


def test_tables() -> None:
    names = sorted(path.stem for path in (FOLDER / "tables").glob("*.parquet"))
    assert {"trajectories", "accuracy", "paired_tests", "probes", "workers"} <= set(names)
    for name in names:
        assert list(read_table(FOLDER, name).columns)
    accuracy = read_table(FOLDER, "accuracy")
    report = json.loads((FOLDER / "report.json").read_text())
    assert accuracy["variant"].tolist() == [row["variant"] for row in report["accuracy"]]
