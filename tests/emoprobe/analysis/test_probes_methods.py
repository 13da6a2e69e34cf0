"""The parts of the probes against references: areas, discriminants, folds, permutations, cosines, the plan."""

from __future__ import annotations

from math import comb

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from emoprobe.analysis.probes.auroc import influences, interval, labelled_auroc, wins
from emoprobe.analysis.probes.cells import Cells
from emoprobe.analysis.probes.confounds import MOST_INFLATION, Confounds, inflation
from emoprobe.analysis.probes.correct import block_permutations, mean_differences
from emoprobe.analysis.probes.directions import cross_fitted_cosines
from emoprobe.analysis.probes.discriminant import variant_moments
from emoprobe.analysis.probes.nuisance import answer_features, nuisance_features, orthonormal, question_features
from emoprobe.analysis.probes.probe_design import (
    correct_test,
    count_splits,
    is_response,
    probe_plan,
    valence_test,
    within_test,
)
from emoprobe.analysis.probes.row_codes import RowCodes, deal_folds
from emoprobe.analysis.probes.valence import contrasts, splits
from emoprobe.analysis.probes.variant import control_tasks, units_of
from emoprobe.analysis.probes.within import dealt_labels
from emoprobe.config.files import parse_config
from tests.emoprobe.analysis import synthetic


class Given(BaseEstimator):  # type: ignore[misc]
    """A covariance estimator for scikit-learn that was fitted elsewhere."""

    def __init__(self, covariance: np.ndarray) -> None:
        self.covariance = covariance

    def fit(self, _features: np.ndarray) -> Given:
        self.covariance_ = self.covariance
        return self


@pytest.mark.parametrize(("samples", "d"), [(12, 100), (25, 100), (60, 20)])
@pytest.mark.parametrize("shrinkage", [0.02, 0.3, 1.0])
def test_the_discriminant_is_scikit_learns(samples: int, d: int, shrinkage: float) -> None:
    """Whether it comes from inner products of rows (the first two) or from covariances of features."""
    settings = synthetic.config(4)
    table = synthetic.table(settings, samples, 0)
    design = RowCodes.of(table, settings)
    features = (
        synthetic.source(table, 1, d, 0).load(0, 1, "input_layernorm.output")["last_prompt"][:, 0].astype(np.float32)
    )
    cells = Cells.of(torch.from_numpy(features)[None], design.fold)
    found = variant_moments(cells, design, shrinkage)
    assert (cells.features is None) == (len(table) > d)
    standard = StandardScaler().fit_transform(features.astype(float))
    labels = design.correct
    # One λ for all training sets: that of γ for as many rows as all folds but one have.
    means = np.stack([standard[design.variant == code].mean(0) for code in range(4)])
    variance = ((standard - means[design.variant]) ** 2).sum() / standard.size
    level = shrinkage * variance * len(standard) * (1 - 1 / design.folds)
    contrasts = np.zeros((len(design.left_out), len(labels), 1), dtype=np.float32)
    for contrast, training in zip(contrasts, design.in_training, strict=True):
        contrast[training] = mean_differences(torch.from_numpy(labels[training])[None]).numpy()
    solutions = found.solve([cells.mix(torch.from_numpy(contrast)) for contrast in contrasts])
    everyone = found.along(torch.eye(len(labels)))[0]
    for number, out in enumerate(design.left_out):
        training, contrast, solution = design.in_training[number], contrasts[number], solutions[number]
        test = ~training
        scores = (everyone @ solution.weights[0])[:, 0].numpy()
        ours = scores[test]
        # The scores of the rows that are left out, which are solved for, are those that the weights give.
        assert list(solution.scores) == list(out)
        for fold, held_out in solution.scores.items():
            np.testing.assert_allclose(held_out[0, :, 0], scores[design.fold == fold], atol=1e-4 * np.abs(scores).max())
        centred = standard[training].copy()
        for code in np.unique(design.variant):
            centred[design.variant[training] == code] -= centred[design.variant[training] == code].mean(0)
        covariance = ((1 - shrinkage) * centred.T @ centred + level * np.eye(d)) / len(centred)
        model = LinearDiscriminantAnalysis(solver="lsqr", covariance_estimator=Given(covariance))
        theirs = model.fit(standard[training], labels[training]).decision_function(standard[test])
        assert np.corrcoef(ours, theirs)[0, 1] > 0.9999, out
        assert abs(roc_auc_score(labels[test], ours) - roc_auc_score(labels[test], theirs)) <= 0.001
        raw = features @ found.raw(solution.weights)[0].numpy()
        assert np.corrcoef(raw[test, 0], theirs)[0, 1] > 0.999
        # The size of the scores counts as well: they are added to what nuisance features predict.
        if shrinkage < 1:
            expected = standard[test] @ np.linalg.solve(covariance, standard.T @ contrast)[:, 0]
            assert np.abs(ours - expected).max() <= 0.002 * np.abs(expected).max()


def test_rows_without_any_difference_have_equal_scores() -> None:
    """Rounding is no feature: the token of a position can be the same in all prompts."""
    settings = synthetic.config(4)
    table = synthetic.table(settings, 12, 0)
    design = RowCodes.of(table, settings)
    features = np.random.default_rng(0).normal(size=100).astype(np.float32)
    for d in (100, 20):
        cells = Cells.of(torch.from_numpy(np.broadcast_to(features[:d], (1, len(table), d)).copy()), design.fold)
        found = variant_moments(cells, design, 0.1)
        mixing = mean_differences(torch.from_numpy(design.correct)[None])
        (solution,) = found.solve([cells.mix(mixing)])
        assert not solution.scores[0].any()
        assert not (found.covariance.x @ solution.weights).any()


@pytest.mark.parametrize("texts", [2, 40])
def test_classes_of_all_tasks_are_made_of_few_groups_of_rows(texts: int) -> None:
    """Of texts, as a control task's label depends on the text alone, unless there are more of them than classes."""
    settings = synthetic.config(
        4, {name: [f"{name} {number}" for number in range(texts)] for name in ("anger", "fear", "joy")}
    )
    design = RowCodes.of(synthetic.table(settings, 80, 0), settings)
    dealt = control_tasks(design, 4, 10)
    assert dealt is not None
    labels = np.stack([design.variant, *dealt])
    units, classes = units_of(design, labels, 4)
    assert len(units) == min(len(np.unique(design.texts)), 44) == (7 if texts == 2 else 44)
    members = (classes.T @ units).numpy().reshape(11, 4, -1)
    assert (members == (labels[:, None] == np.arange(4)[:, None])).all()


@pytest.mark.parametrize("n", [20, 300])
def test_areas_are_scikit_learns_with_ties_and_rows_left_out(n: int) -> None:
    generator = np.random.default_rng(0)
    for _ in range(10):
        labels = generator.integers(-1, 2, n)
        scores = np.round(generator.normal(size=n) + labels * generator.uniform(0, 1.5), 1)
        known = labels >= 0
        expected = roc_auc_score(labels[known], scores[known])
        tensor, truth = torch.from_numpy(scores), torch.from_numpy(labels)
        assert float(labelled_auroc(tensor, truth)) == pytest.approx(expected)
        one, zero = (tensor[truth == value] for value in (1, 0))
        assert float(wins(one, zero).sum()) == pytest.approx(expected * len(one) * len(zero))
    constant = torch.zeros(n)
    assert float(labelled_auroc(constant, truth)) == 0.5
    assert torch.isnan(labelled_auroc(constant, torch.zeros(n)))


def test_influences_give_the_variance_of_the_area() -> None:
    generator = np.random.default_rng(0)
    labels = torch.from_numpy(np.repeat([0, 1], 60))
    scores = torch.from_numpy(generator.normal(size=(400, 120)) + 0.8 * labels.numpy())
    areas = labelled_auroc(scores, labels.expand(scores.shape))
    predicted = influences(scores, labels).square().sum(1).mean().sqrt()
    assert float(predicted) == pytest.approx(float(areas.std()), rel=0.1)
    assert all(np.isnan(interval(0.7, np.ones(19), 5)))
    assert all(np.isfinite(interval(0.7, np.ones(20) / 100, 5)))


def test_a_group_is_never_on_both_sides() -> None:
    groups = np.repeat(np.arange(30), np.random.default_rng(0).integers(1, 6, 30))
    folds = deal_folds(groups, 5, 0)
    assert all(len(set(folds[groups == group])) == 1 for group in set(groups))
    assert sorted(set(folds)) == [0, 1, 2, 3, 4]
    settings = synthetic.config(4)
    table = synthetic.table(settings, 20, 0)
    table["group"] = pd.array(["a" if sample < "s_0005" else None for sample in table["sample_id"]], dtype="string")
    design = RowCodes.of(table, settings)
    assert len(np.unique(design.group)) == 16
    assert len(np.unique(design.fold[(table["group"] == "a").fillna(False).to_numpy(dtype=bool)])) == 1


@pytest.mark.parametrize(("negative", "positive", "ways"), [(4, 4, 35), (3, 4, 35), (5, 5, 126), (2, 2, 3)])
def test_all_ways_to_deal_valences_are_listed_once(negative: int, positive: int, ways: int) -> None:
    signs = np.array([1, *[-1] * negative, *[1] * (positive - 1)])
    found = splits(signs, np.zeros(len(signs), dtype=int), 199, 0)
    assert len(found) == ways
    assert len({tuple(row) for row in found.tolist()}) == ways
    assert ((found > 0).sum(1) == positive).all()
    assert tuple(found[0]) in {tuple(signs), tuple(-signs)}


@pytest.mark.parametrize(
    ("position", "inside"),
    [("last_prompt", False), ("prefix_mean", False), ("response_mean", True), ("thinking_mean", True)],
)
def test_a_thought_is_part_of_the_response(position: str, inside: bool) -> None:
    """Its length, truncation and words have to be beaten there as well."""
    assert is_response(position) is inside


@pytest.mark.parametrize(
    ("strata", "ways"),
    [([(3, 3), (3, 3)], 200), ([(2, 2), (2, 2)], 18), ([(2, 1), (2, 3)], 30), ([(1, 1), (3, 3)], 20)],
)
def test_valences_are_dealt_within_an_arousal(strata: list[tuple[int, int]], ways: int) -> None:
    signs = np.concatenate([np.repeat([-1, 1], counts) for counts in strata])
    codes = np.repeat(np.arange(len(strata)), [sum(counts) for counts in strata])
    dealt = splits(signs, codes, 199, 0)
    assert len(dealt) == count_splits(strata) == ways
    assert len({tuple(row) for row in dealt.tolist()}) == ways
    for code, (negative, positive) in enumerate(strata):
        sizes = (dealt[:, codes == code] > 0).sum(1)
        # An exchange of all signs is the same way, so that a stratum may have either number of positive ones.
        assert set(sizes.tolist()) <= {positive, negative}
    pairs = contrasts(tuple(signs.tolist()), tuple(codes.tolist())).pairs
    assert (codes[pairs[:, 0]] == codes[pairs[:, 1]]).all()
    assert len(pairs) == sum(negative * positive for negative, positive in strata)


def test_many_ways_are_sampled_without_repeats() -> None:
    found = splits(np.repeat([-1, 1], 8), np.zeros(16, dtype=int), 199, 0)
    assert comb(16, 8) // 2 > len(found) == 200
    assert len({tuple(row) for row in found.tolist()}) == 200


def test_permuted_questions_keep_their_variants_and_groups() -> None:
    settings = synthetic.config(3)
    table = synthetic.table(settings, 12, 0)
    design = RowCodes.of(table, settings)
    for origin in block_permutations(design, 20)[1:]:
        assert sorted(origin) == list(range(len(design)))
        assert (design.variant[origin] == design.variant).all()
        assert (pd.Series(design.question[origin]).groupby(design.question).nunique() == 1).all()
    table["group"] = pd.array([f"t{int(sample[-2:]) // 4}" for sample in table["sample_id"]], dtype="string")
    design = RowCodes.of(table, settings)
    for origin in block_permutations(design, 20):
        assert (pd.Series(design.group[origin]).groupby(design.group).nunique() == 1).all()


def test_differences_to_a_shared_reference_have_no_cosine_in_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    ours = torch.randn((40, 60, 4, 64), generator=generator)
    reference = torch.randn((40, 60, 1, 64), generator=generator)
    means = torch.nn.functional.normalize((ours - reference).mean(1), dim=-1)
    naive = (means @ means.mT).numpy()
    off = ~np.eye(4, dtype=bool)
    assert naive[:, off].mean() > 0.4
    sums = (ours - reference).view(40, 20, 3, 4, 64).sum(2)
    cosine, low, high = cross_fitted_cosines(sums, 60, 0)
    assert abs(cosine[:, off].mean()) < 0.03
    assert ((low <= 0) & (high >= 0))[:, off].mean() > 0.9
    shared = sums + 3 * torch.randn((1, 1, 1, 64), generator=generator)
    strong, *_ = cross_fitted_cosines(shared, 60, 0)
    assert strong.min() > 0.8
    assert np.isnan(cross_fitted_cosines(sums, 19, 0)[1]).all()


def test_nuisance_features_are_what_the_table_has() -> None:
    settings = synthetic.config(4)
    table = synthetic.table(settings, 30, 0)
    design = RowCodes.of(table, settings)
    assert nuisance_features(table, design, words=True).shape == (120, 1)
    table["completion_tokens"] = pd.array(np.arange(120) % 50, dtype="Int64")
    table["extraction"] = pd.array(["boxed", "none", None] * 40, dtype="string")
    table["completion"] = ["so the answer is", "no idea"] * 60
    lean = nuisance_features(table, design, words=False)
    assert nuisance_features(table, design, words=True).shape[1] > lean.shape[1]
    assert np.allclose(lean.std(0), 1)
    basis = orthonormal(lean)
    assert np.allclose(basis.T @ basis, np.eye(basis.shape[1]), atol=1e-6)


def test_slopes_come_from_within_variants_and_their_errors_are_counted() -> None:
    generator = np.random.default_rng(0)
    variant, signs = np.repeat(np.arange(4), 50), np.array([-1, -1, 1, 1])
    length = generator.normal(size=200)[:, None]
    apart = length + 1.0 * signs[variant][:, None]
    assert inflation(length, variant, signs) < 0.1
    # An error of a slope is as large as 1 over the spread within variants, and counts as often as valences are apart.
    means = np.array([apart[variant == code].mean() for code in range(4)])
    within = sum(((apart[variant == code] - mean) ** 2).sum() for code, mean in enumerate(means))
    expected = (means[2:].mean() - means[:2].mean()) ** 2 / within / (2 / 100)
    assert inflation(apart, variant, signs) == pytest.approx(expected)
    assert inflation(np.column_stack([apart, -2 * apart]), variant, signs) == pytest.approx(expected)
    assert inflation(signs[variant][:, None].astype(float), variant, signs) == np.inf
    confounds = Confounds.of({"length": apart, "valence itself": signs[variant][:, None] * 1.0}, variant, signs)
    assert expected > MOST_INFLATION
    assert confounds.inseparable == ["length", "valence itself"]
    activations = 3 * apart + 7 * signs[variant][:, None]
    slopes = Confounds.of({"length": apart}, variant, signs).solver @ activations
    assert slopes * apart.std() ** -1 == pytest.approx(np.array([[3.0]]))


@pytest.mark.parametrize("draws", [1, 3])
def test_labels_within_questions_keep_their_margins(draws: int) -> None:
    settings = synthetic.config(synthetic.BALANCED)
    table = pd.concat([synthetic.table(settings, 12, 3).assign(draw=draw) for draw in range(1, draws + 1)])
    table["correct"] = pd.array(np.random.default_rng(1).random(len(table)) < 0.6, dtype="boolean")
    design = RowCodes.of(table.iloc[3:].reset_index(drop=True), settings)
    block = design.question if draws == 1 else design.question * len(design.variants) + design.variant
    block = np.unique(block, return_inverse=True)[1]
    dealt = dealt_labels(design, block, 50)
    assert np.array_equal(dealt[0], design.correct)
    assert len(np.unique(dealt, axis=0)) > 40
    for codes in (block, design.question, design.variant, design.variant * 2 + design.paraphrase + 1):
        counts = np.array([np.bincount(codes, labels) for labels in dealt])
        assert (counts == counts[0]).all()


def test_questions_are_described_by_length_and_numbers() -> None:
    table = pd.DataFrame({"question": ["What is 4 + 3?", "What is 1,204.5 + 30 - 7?", "What is it?"] * 20})
    assert question_features(table, 10).shape == (60, 6)
    assert question_features(table, 60).shape[1] > 6
    assert question_features(table.assign(question=None), 60).shape == (60, 0)


def test_what_no_answer_has_is_no_explanation() -> None:
    table = synthetic.table(synthetic.config(4), 8, 0)
    assert answer_features(table) == {}  # no column of answers has a value
    known = answer_features(table.assign(completion_tokens=range(len(table)), truncated=False))
    assert list(known) == ["length", "truncation"]


def test_the_plan_says_what_can_be_reached() -> None:
    plan = probe_plan(synthetic.config(synthetic.BALANCED, permutations=199))
    assert plan is not None
    tests = {test.target: test for test in plan.tests}
    assert tests["valence"].exact
    assert tests["valence"].smallest_p == pytest.approx(1 / 35)
    assert tests["valence"].reachable
    assert not tests["variant"].reachable
    assert tests["correct"].smallest_p == pytest.approx(1 / 200)
    assert "8 questions or groups of them; 20 are needed" in str(tests["correct"].reason)
    assert correct_test(20, 199, 5).reachable
    assert "8 questions with right and wrong answers; 12 are needed" in str(tests["correct_within"].reason)
    assert within_test(12, 199).reachable
    few = valence_test([(3, 4)], 199)
    assert not few.reachable
    assert "at least 4 of each" in str(few.reason)
    assert probe_plan(parse_config({"capture": {"enabled": False}})) is None
