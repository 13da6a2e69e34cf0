"""Probes on planted truth: nothing, a direction, a leak; and the solver against scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from emoprobe.analysis.probes.experiment import run_probes
from emoprobe.analysis.probes.logistic import Basis, Problem, fit, probabilities, standardise
from emoprobe.analysis.probes.scores import auroc, auroc_interval, bootstrap_counts
from emoprobe.analysis.probes.targets import make_folds, make_target
from tests.emoprobe.analysis import synthetic


@pytest.mark.parametrize("strength", [1e-3, 1e-1, 10.0])
@pytest.mark.parametrize(("n", "d"), [(400, 60), (60, 200)])
def test_the_solver_finds_scikit_learns_solution(strength: float, n: int, d: int) -> None:
    generator = np.random.default_rng(0)
    features = (generator.normal(size=(n, d)) * np.geomspace(5, 0.1, d) + 3).astype(np.float32)
    two = (features[:, 0] + generator.normal(size=n) > 3).astype(int)
    four = (np.digitize(features[:, 1] + generator.normal(size=n), [0, 3, 6])).astype(int)
    tensor = torch.from_numpy(features)
    basis, standard = Basis.of(tensor), standardise(tensor, tensor)
    problems = [Problem(torch.from_numpy(two), 2, strength), Problem(torch.from_numpy(four), 4, strength)]
    rotated = standard @ basis.rotation
    found = probabilities(rotated, fit(rotated, basis.spectrum, problems, 500, 1e-5), problems)
    for labels, chances in ((two, found[0]), (four, found[1])):
        reference = LogisticRegression(C=strength, max_iter=5000, tol=1e-8).fit(standard.numpy(), labels)
        assert np.abs(reference.predict_proba(standard.numpy()) - chances.numpy()).max() < 0.02


def test_rows_without_a_label_do_not_count() -> None:
    generator = np.random.default_rng(1)
    features = torch.from_numpy(generator.normal(size=(200, 10)).astype(np.float32))
    labels = torch.from_numpy((features[:, 0].numpy() > 0).astype(int))
    masked = labels.clone()
    masked[100:] = -1
    noise = labels.clone()
    noise[100:] = 1 - noise[100:]
    basis = Basis.of(features)
    rotated = features @ basis.rotation
    whole = fit(rotated, basis.spectrum, [Problem(masked, 2, 1.0)], 300, 1e-6)[0]
    half = fit(rotated[:100], basis.spectrum, [Problem(labels[:100], 2, 1.0)], 300, 1e-6)[0]
    assert torch.allclose(whole, half, atol=2e-2)


def test_auroc_is_scikit_learns_with_ties_and_its_interval_holds_it() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        labels = generator.integers(0, 2, 80)
        score = np.round(generator.normal(size=80) + labels * generator.uniform(0, 1.5), 1)
        chances = np.stack([-score, score], axis=1)
        folds, groups = np.zeros(80, dtype=int), np.arange(80)
        area = auroc(chances, labels, folds)
        assert area == pytest.approx(roc_auc_score(labels, score))
        counts = bootstrap_counts(groups, folds, 500, 0)
        low, high = auroc_interval(chances, labels, folds, counts)
        assert low < area < high
        direct = []
        for row in counts[:100]:
            repeated = np.repeat(np.arange(80), row.astype(int))
            direct.append(roc_auc_score(labels[repeated], score[repeated]))
        small = auroc_interval(chances, labels, folds, counts[:100])
        assert small == pytest.approx(tuple(np.quantile(direct, [0.025, 0.975])), abs=1e-6)


def test_a_question_is_never_on_both_sides() -> None:
    settings = synthetic.config(4)
    frame = synthetic.table(settings, 40, 0)
    groups = frame["sample_id"].to_numpy()
    folds = make_folds(frame["correct"].astype(int).to_numpy(), groups, 5, 0)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    assert sorted(set(folds)) == [0, 1, 2, 3, 4]


def test_no_signal_is_covered_at_its_nominal_rate() -> None:
    settings = synthetic.config(3, targets=["correct", "variant"], strengths=[0.01])
    covered = []
    for seed in range(13):
        frame = synthetic.table(settings, 40, seed)
        source = synthetic.source(frame, 4, 24, seed)
        found = run_probes(frame, source, settings, transfers=False)
        covered += [row["auroc_low"] <= 0.5 <= row["auroc_high"] for row in found.probes]
    assert len(covered) >= 200
    assert 0.88 <= np.mean(covered) <= 0.99


def test_a_planted_direction_is_found_where_it_is_and_nowhere_else() -> None:
    settings = synthetic.config(3, targets=["variant"], strengths=[0.01, 0.1])
    frame = synthetic.table(settings, 60, 0)
    direction = np.random.default_rng(5).normal(size=48)
    direction /= np.linalg.norm(direction)
    is_anger = (frame["variant"] == "anger").to_numpy()

    def signal(layer: int, position: str, noise: np.ndarray) -> np.ndarray:
        planted = 6.0 * np.outer(is_anger, direction)
        return planted if (layer, position) == (2, "response_mean") else np.zeros_like(noise)

    found = run_probes(frame, synthetic.source(frame, 4, 48, 0, signal), settings, transfers=False)
    probes = pd.DataFrame(found.probes).set_index(["layer", "position"])
    assert probes.loc[(2, "response_mean"), "auroc"] > 0.8
    others = probes.drop(index=(2, "response_mean"))
    assert others["auroc"].max() < 0.65
    means = found.directions.tensors["diff_means/input_layernorm.output/response_mean"]
    anger = found.directions.variants.index("anger")
    assert float(means[anger, 2] @ direction) >= 0.95
    assert abs(float(means[anger, 1] @ direction)) < 0.6


def test_a_leak_through_the_question_is_not_taken_for_a_finding() -> None:
    settings = synthetic.config(4, targets=["correct"], strengths=[0.1])
    generator = np.random.default_rng(0)
    frame = synthetic.table(settings, 50, 0)
    of_sample = dict(zip(frame["sample_id"].unique(), generator.integers(0, 2, 50).astype(bool), strict=True))
    frame["correct"] = frame["sample_id"].map(of_sample).astype("boolean")
    places = {sample: generator.normal(size=64) * 3 for sample in of_sample}
    constant = np.stack([places[sample] for sample in frame["sample_id"]])
    source = synthetic.source(frame, 1, 64, 0, lambda _l, _p, _n: constant, positions=("last_prompt",))
    (probe,) = run_probes(frame, source, settings, transfers=False).probes
    assert probe["auroc_low"] <= 0.5 <= probe["auroc_high"]
    features = source.load(0, 1, "input_layernorm.output")["last_prompt"][:, 0].astype(float)
    labels = frame["correct"].astype(int).to_numpy()
    leaky = cross_val_predict(
        LogisticRegression(C=0.1, max_iter=1000), features, labels, cv=StratifiedKFold(5), method="predict_proba"
    )
    assert roc_auc_score(labels, leaky[:, 1]) > 0.95


def test_targets_with_too_few_examples_are_skipped_with_the_reason() -> None:
    settings = synthetic.config(3)
    frame = synthetic.table(settings, 20, 0)
    frame["correct"] = pd.array([True] * 2 + [False] * (len(frame) - 2), dtype="boolean")
    assert "too few samples" in str(make_target("correct", frame, settings).skipped)
    frame["correct"] = pd.array([False] * len(frame), dtype="boolean")
    assert "only one class" in str(make_target("correct", frame, settings).skipped)
    found = run_probes(frame, synthetic.source(frame, 1, 8, 0), settings)
    skipped = [row for row in found.probes if row["skipped"]]
    assert {row["target"] for row in skipped} == {"correct", "valence"}


def test_transfer_rows_say_what_was_held_out() -> None:
    settings = synthetic.config(7, strengths=[0.1])
    frame = synthetic.table(settings, 30, 0)
    rows = pd.DataFrame(run_probes(frame, synthetic.source(frame, 1, 16, 0), settings).transfer)
    assert set(rows["kind"]) == {"position", "text", "variant"}
    assert set(rows.loc[rows["kind"] == "text", "train"]) == {"paraphrase 0", "paraphrase 1"}
    assert set(rows.loc[rows["kind"] == "position", "train"]) == {"last_prompt", "response_mean"}
    assert "anger" in set(rows.loc[rows["kind"] == "variant", "train"])
