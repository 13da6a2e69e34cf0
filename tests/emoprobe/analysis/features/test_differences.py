"""Planted features that differ are those that are reported; what does not differ is not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from emoprobe.analysis.features.autoencoder import SparseAutoencoder, random_autoencoder
from emoprobe.analysis.features.baselines import Coder, Projection, TokenMoments, principal_components
from emoprobe.analysis.features.differences import (
    Block,
    FeatureCandidate,
    FeatureRanking,
    Sums,
    auroc,
    compared,
    corrected,
)
from emoprobe.analysis.features.feature_tests import feature_differences
from emoprobe.analysis.features.tokens import PARTS
from emoprobe.results.activation_folder import TENSORS
from tests.emoprobe.analysis.features.planted import Planted, planted, table

FEATURES, D = 24, 32
DIFFERING = (3, 11)  # of joy; the first is more often active, the second less
TEXTS = {"control": 0, "filler": 8, "joy": 8, "calm": 8}


def moved(row: Mapping[str, object], generator: np.random.Generator) -> np.ndarray:
    odds = np.zeros(FEATURES)
    odds[DIFFERING[1]] = 0.6
    if row["variant"] == "joy":
        odds[list(DIFFERING)] = 0.7, 0.0
    return odds


def perfect(world: Planted) -> SparseAutoencoder:
    """The autoencoder that has the planted directions as its features."""
    inverse = torch.linalg.pinv(world.dictionary)
    return SparseAutoencoder(
        "standard", inverse, torch.full((FEATURES,), -0.3), world.dictionary, torch.full((D,), 3.0)
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return planted(tmp_path_factory.mktemp("tokens"), table(96, TEXTS), FEATURES, D, plant=moved)


def test_planted_features_are_those_reported(world: Planted) -> None:
    moments = TokenMoments.of(world.tokens.half("fit"))
    coders: dict[str, Coder] = {
        "autoencoder": perfect(world),
        "random": random_autoencoder(FEATURES, 2, moments.mean, 0),
        "pca": principal_components(moments),
    }
    rows = pd.DataFrame(feature_differences(world.tokens, coders, ["joy", "calm"], "filler", 4))
    own = rows[rows["method"] == "autoencoder"]
    found = own[own["differs"] == True]  # noqa: E712
    assert {*zip(found["variant"], found["part"], found["feature"].astype(int), strict=True)} == {
        ("joy", part, feature) for part in PARTS for feature in DIFFERING
    }
    first = found[found["feature"] == DIFFERING[0]]
    assert (first["difference"] > 0).all()
    assert (found[found["feature"] == DIFFERING[1]]["difference"] < 0).all()
    assert (found["low"] * found["high"] > 0).all()
    assert (first["tone_active"] > 0.6).all()
    assert (first["reference_active"] < 0.3).all()
    assert (own["n"] == 48).all()
    assert (own["texts"] == 4).all()
    assert (own["unit"] == "texts").all()
    assert (found["auroc"] > 0.9).all()
    assert not own[own["variant"] == "calm"]["differs"].any()
    direct = rows[(rows["method"] == "diff_means") & (rows["variant"] == "joy")]
    assert direct["feature"].isna().all()
    assert (direct["auroc"] > 0.9).all()
    assert {*rows["method"]} == {"autoencoder", "random", "pca", "diff_means"}


def test_what_the_prefix_holds_changes_nothing(tmp_path: Path) -> None:
    world = planted(tmp_path, table(48, {"filler": 8, "joy": 8}), FEATURES, D)
    before = feature_differences(world.tokens, {"autoencoder": perfect(world)}, ["joy"], "filler", 4)
    for shard, variant in zip(world.tokens.shards, world.tokens.table["variant"], strict=True):
        if variant == "joy":
            tensors = load_file(shard.folder / TENSORS)
            tensors["resid_post"][0, slice(*shard.metadata.spans.prefix)] += 50.0  # type: ignore[union-attr,misc]
            save_file(tensors, shard.folder / TENSORS)
    after = feature_differences(world.tokens, {"autoencoder": perfect(world)}, ["joy"], "filler", 4)
    pd.testing.assert_frame_equal(pd.DataFrame(before), pd.DataFrame(after))


def blocks(rows: pd.DataFrame, values: np.ndarray) -> list[Block]:
    """One part's values (rows, features), by question."""
    return [
        (np.asarray(own, dtype=np.int64), {"question": values[own]})
        for own in rows.groupby("sample_id").indices.values()
    ]


def test_choices_follow_the_clearest_difference() -> None:
    rows = table(40, {"filler": 8, "joy": 8})
    generator = np.random.default_rng(0)
    values = generator.normal(size=(len(rows), 6))
    joy = rows["variant"].eq("joy").to_numpy()
    values[joy, 2] += 3
    values[joy, 4] -= 2
    values[:, 5] = 7.0
    # One text alone moves a feature a lot: that is less clear than what all of them do.
    values[joy & rows["paraphrase"].eq(2).to_numpy(), 1] += 9
    ranking = FeatureRanking(["joy"], "filler", rows)
    for block in blocks(rows, values):
        ranking.add(block)
    chosen = ranking.choose(3)
    assert [choice.feature for choice in chosen][:2] == [2, 4]
    assert [choice.rank for choice in chosen] == [1, 2, 3]
    assert chosen[0].fitted > 0 > chosen[1].fitted
    assert 5 not in [choice.feature for choice in FeatureRanking.choose(ranking, 6)]
    assert Sums(np.zeros(3), np.zeros(3), np.zeros((2, 3))).score().tolist() == [0, 0, 0]


def test_draws_are_averaged_and_missing_trajectories_left_out() -> None:
    rows = table(16, {"filler": 1, "joy": 1})
    rows = pd.concat([rows, rows.assign(draw=2)], ignore_index=True)
    joy = rows["variant"].eq("joy").to_numpy()
    values = np.where(joy, 1.0, 0.0) + np.where(rows["draw"] == 2, 0.5, -0.5) + 0.01 * np.arange(len(rows)) % 0.07
    values = values[:, None]
    gone = rows["sample_id"].eq("s_0003").to_numpy() & joy
    values[gone] = np.nan
    choice = FeatureCandidate("joy", "question", 0, 1, 1.0)
    (row,) = compared(rows, "filler", [choice], blocks(rows, values))
    assert row["n"] == 15
    assert row["unit"] == "questions"
    assert row["difference"] == pytest.approx(1.0, abs=0.05)
    (other,) = compared(rows, "filler", [FeatureCandidate("joy", "question", 0, 1, -1.0)], blocks(rows, values))
    assert other["auroc"] == pytest.approx(1 - row["auroc"])


def test_too_few_texts_give_no_test() -> None:
    rows = table(40, {"filler": 4, "joy": 4})
    own = rows[rows["half"] == "test"]
    values = np.random.default_rng(0).normal(size=(len(rows), 1))
    part = [block for block in blocks(rows, values) if block[0][0] in own.index]
    found = corrected(compared(rows, "filler", [FeatureCandidate("joy", "question", 0, 1, 1.0)], part))
    assert found[0]["texts"] == 2
    assert np.isnan(found[0]["p"])
    assert found[0]["differs"] is None
    assert np.isnan(found[0]["p_corrected"])


def test_five_texts_are_enough() -> None:
    rows = table(40, {"filler": 5, "joy": 5})
    own = rows[rows["half"] == "test"]
    values = np.random.default_rng(0).normal(size=(len(rows), 1))
    part = [block for block in blocks(rows, values) if block[0][0] in own.index]
    (found,) = compared(rows, "filler", [FeatureCandidate("joy", "question", 0, 1, 1.0)], part)
    assert found["texts"] == 3
    assert found["p"] > 0


def test_the_correction_is_over_features_and_tones() -> None:
    def rows(**p: list[float]) -> list[dict[str, object]]:
        return [{"variant": tone, "p": value} for tone, values in p.items() for value in values]

    # Benjamini and Hochberg within a tone, times tones over tones that differ.
    found = corrected(rows(a=[0.001, 0.2, 0.01, float("nan")], b=[0.5, 0.9]))
    assert [row["p_corrected"] for row in found[:3]] == pytest.approx([0.006, 0.4, 0.03])
    assert [row["differs"] for row in found] == [True, False, True, None, False, False]
    # Simes over the features: 3 × 0.001; Holm over two tones.
    assert found[0]["p_tone"] == pytest.approx(0.006)
    # One tone's clear features do not help another tone's unclear one.
    found = corrected(rows(a=[1e-9] * 20, b=[0.03]))
    assert [row["differs"] for row in found] == [True] * 20 + [True]
    found = corrected(rows(a=[1e-9] * 20, b=[0.03, 0.9], c=[0.8]))
    assert not any(row["differs"] for row in found[20:])
    # A tone that differs has a feature that does.
    generator = np.random.default_rng(0)
    for _ in range(200):
        found = corrected(rows(**{name: list(generator.beta(0.3, 3, 5)) for name in "abcd"}))
        for name in "abcd":
            own = [row for row in found if row["variant"] == name]
            assert any(row["differs"] for row in own) == (own[0]["p_tone"] <= 0.05)


def test_the_area_counts_ties_half() -> None:
    assert auroc(np.array([1.0, 2.0]), np.array([0.0, 1.0])) == 0.875
    assert auroc(np.zeros(3), np.zeros(4)) == 0.5
    assert np.isnan(auroc(np.zeros(0), np.zeros(4)))


def test_components_and_moments(world: Planted) -> None:
    shards = world.tokens.half("fit")
    values = torch.cat([shard.tokens() for shard in shards]).double()
    moments = TokenMoments.of(shards)
    assert torch.allclose(moments.covariance, torch.cov(values.T, correction=0), atol=1e-6)
    assert moments.median_norm == pytest.approx(float(values.norm(dim=1).median()), rel=1e-3)
    found = principal_components(moments)
    spread = found.encode(values.float()).var(0)
    assert isinstance(found, Projection)
    assert bool((spread[:-1] >= spread[1:] - 1e-4).all())
