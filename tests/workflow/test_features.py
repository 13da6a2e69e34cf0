"""Features by the real workflow: every token's activations, autoencoders, tables, page; and what a change plans."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.torch import load_file

from emoprobe.results.tables import read_table
from tests.workflow.pool import end_pool
from tests.workspace import Workspace

TEXTS = [f"{word} is how I feel today." for word in ("Glad", "Cheerful", "Merry", "Happy", "Jolly", "Bright")]
NEUTRAL = [
    f"{word} stands near the road." for word in ("A house", "One tree", "The wall", "A bench", "A sign", "One post")
]
REPORTED = {"report_experiment": 1}
ANALYZED = {"analyze_features": 1, "build_explorer": 1, "draw_feature_figures": 1, **REPORTED}
COMPUTED = {"measure_autoencoders": 1, **ANALYZED}
DESCRIBED = {"describe_experiment": 1}


@pytest.fixture(scope="module")
def finished(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    config: dict[str, Any] = {
        "experiment": {"name": "featured"},
        "model": {"source": str(tiny("llama"))},
        "dataset": {
            "source": "reasoning_gym:chain_sum",
            "arguments": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
            "samples": 18,
            "id_prefix": "sum",
        },
        "variants": {
            "control": {},
            "filler": {"texts": NEUTRAL},
            "joy": {"texts": TEXTS, "valence": "positive"},
        },
        "generation": {"backend": "nnsight", "max_tokens": 4},
        "workers": {"keep_alive": 900.0},
        "capture": {"enabled": False},
        "features": {
            "enabled": True,
            "layer": -2,
            "dtype": "float32",
            "autoencoder": {"width": 64, "k": 4, "steps": 30, "batch_tokens": 64},
            "chosen": 3,
            "contexts": 2,
            "evaluated": 6,
        },
    }
    workspace = Workspace(tmp_path_factory.mktemp("featured"), config)
    workspace.run()
    yield workspace
    end_pool(config)


def change(workspace: Workspace, **features: Any) -> Workspace:
    """The same folder with other settings."""
    config = {**workspace.config, "features": {**workspace.config["features"], **features}}
    return Workspace(workspace.folder, config)


def test_everything_is_there(finished: Workspace) -> None:
    root = finished.layout.root
    assert finished.planned() == {}
    for variant in finished.config["variants"]:
        folder = finished.layout.tokens(variant, "sum_0003")
        metadata = json.loads((folder / "metadata.json").read_text())
        state = finished.json(variant, "sum_0003", "agent_state.json")
        assert metadata["token_ids"] == state["prompt_token_ids"] + state["completion_token_ids"]
        assert metadata["layers"] == [1]
        assert {*load_file(folder / "activations.safetensors")} == {"resid_post"}
    quality = read_table(root, "autoencoders")
    assert list(quality["name"]) == ["seed-1", "seed-2", "seed-3", "random"]
    trained = quality[quality["kind"] == "trained"]
    assert trained["toy"].all()
    assert (trained["training_tokens"] > 500).all()
    assert trained[["fvu", "l0", "dead", "recovered", "shared"]].notna().all().all()
    features = read_table(root, "features")
    assert {*features["method"]} == {"autoencoder", "random", "pca", "diff_means"}
    assert {*features["variant"]} == {"joy"}
    assert features["p_tone"].notna().any()
    contexts = read_table(root, "feature_contexts")
    assert {*contexts["feature"]} <= {*features[features["method"] == "autoencoder"]["feature"]}
    about = {statement["about"]: statement for statement in finished.json("report.json")["statements"]}
    assert about["feature:joy"]["verdict"] in ("found", "not_found")
    assert "toys" in about["feature:autoencoders"]["text"]
    page = finished.layout.report_html.read_text()
    assert "Where features are active" in page
    assert 'id="feature_effects"' in page
    directions = load_file(finished.layout.feature_directions())
    for feature in features[features["method"] == "autoencoder"]["feature"].unique():
        assert directions[f"feature-{feature}"].norm() == pytest.approx(1, abs=1e-5)
        assert directions[f"feature-{feature}.norm"] > 0
    assert not list((root / "features").glob("checkpoints/*"))


@pytest.mark.parametrize(
    ("features", "planned"),
    [
        ({"layer": 0}, {"capture_tokens": 54, "verify": 1, "train_autoencoder": 3, **COMPUTED}),
        ({"samples": 12}, {"verify": 1, "train_autoencoder": 3, **COMPUTED}),
        ({"autoencoder": {"width": 32, "k": 4, "steps": 30, "batch_tokens": 64}}, {"train_autoencoder": 3, **COMPUTED}),
        (
            {"autoencoder": {"width": 64, "k": 4, "steps": 30, "batch_tokens": 64, "seeds": 4}},
            {"train_autoencoder": 1, **COMPUTED},
        ),
        ({"chosen": 2}, ANALYZED),
        ({"contexts": 1}, ANALYZED),
        ({"evaluated": 3}, {"measure_autoencoders": 1, **REPORTED}),
    ],
)
def test_what_a_change_plans(finished: Workspace, features: dict[str, Any], planned: dict[str, int]) -> None:
    assert change(finished, **features).planned() == {**planned, **DESCRIBED}


def test_lost_files_come_back_the_same(finished: Workspace) -> None:
    tokens = finished.layout.tokens("joy", "sum_0002") / "activations.safetensors"
    weights = finished.layout.autoencoder("seed-2") / "sae_weights.safetensors"
    before = tokens.read_bytes(), weights.read_bytes(), tables(finished)
    shutil.rmtree(tokens.parent)
    shutil.rmtree(weights.parent)
    assert finished.planned() == {"capture_tokens": 1, "verify": 1, "train_autoencoder": 3, **COMPUTED}
    finished.run()
    assert (tokens.read_bytes(), weights.read_bytes()) == before[:2]
    for first, second in zip(before[2], tables(finished), strict=True):
        pd.testing.assert_frame_equal(first, second)
    assert finished.planned() == {}


def tables(workspace: Workspace) -> list[pd.DataFrame]:
    return [read_table(workspace.layout.root, name) for name in ("autoencoders", "features", "feature_contexts")]


def test_a_pretrained_autoencoder_takes_the_place_of_the_trained(finished: Workspace, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished.folder, folder)
    source = folder / "pretrained"
    shutil.copytree(finished.layout.autoencoder("seed-1"), source)
    workspace = change(finished, autoencoder={"source": str(source)})
    workspace = Workspace(folder, workspace.config)
    assert workspace.planned() == {**COMPUTED, **DESCRIBED}
    workspace.run()
    quality = read_table(workspace.layout.root, "autoencoders")
    assert list(quality["name"]) == ["pretrained", "random"]
    assert quality["toy"].isna().all()
    assert quality["fvu"].iloc[0] == read_table(finished.layout.root, "autoencoders")["fvu"].iloc[0]
    (note,) = (one for one in workspace.json("report.json")["statements"] if one["about"] == "feature:autoencoders")
    assert note["text"].startswith("The pretrained autoencoder at layer 1 has 64 features.")
    # Other weights are another autoencoder.
    shutil.copytree(finished.layout.autoencoder("seed-2"), source, dirs_exist_ok=True)
    assert workspace.planned() == COMPUTED
