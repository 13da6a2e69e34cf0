"""Statistics agree with formulas written out by hand, on random tables."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from emoprobe.analysis import behaviour, consistency
from emoprobe.analysis.statistics import (
    detectable_difference,
    exact_mcnemar,
    holm,
    kappa,
    mean_interval,
    wilcoxon,
    wilson,
)

SEEDS = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_wilson_is_its_formula(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, 400))
    k = int(generator.integers(0, n + 1))
    z = stats.norm.ppf(0.975)
    centre = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    assert wilson(k, n) == pytest.approx((max(0.0, centre - half), min(1.0, centre + half)), abs=1e-12)


@pytest.mark.parametrize("seed", SEEDS)
def test_mcnemar_is_the_binomial_test(seed: int) -> None:
    generator = np.random.default_rng(seed)
    gained, lost = (int(value) for value in generator.integers(0, 40, 2))
    expected = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert exact_mcnemar(gained, lost) == pytest.approx(min(1.0, expected))


@pytest.mark.parametrize("seed", SEEDS)
def test_holm_is_its_definition(seed: int) -> None:
    p = np.random.default_rng(seed).uniform(0, 0.2, 7)
    order, running, expected = np.argsort(p), 0.0, np.empty(7)
    for rank, place in enumerate(order):
        running = max(running, min(1.0, float(p[place]) * (7 - rank)))
        expected[place] = running
    assert holm(p.tolist()) == pytest.approx(expected.tolist())


@pytest.mark.parametrize("seed", SEEDS)
def test_kappa_is_its_formula(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.integers(0, 2, (2, 50))
    observed = float((first == second).mean())
    chance = first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean())
    assert kappa(first, second) == pytest.approx((observed - chance) / (1 - chance))


@pytest.mark.parametrize("seed", range(20))
def test_bootstrap_agrees_with_the_t_interval_within_its_error(seed: int) -> None:
    values = np.random.default_rng(seed).normal(0.3, 1.0, 200)
    found = mean_interval(values, 4000, seed)
    low, high = stats.t.interval(0.95, 199, values.mean(), values.std(ddof=1) / math.sqrt(200))
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=0.02)
    assert found.high == pytest.approx(high, abs=0.02)


def test_awkward_inputs() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert exact_mcnemar(0, 0) == 1.0
    assert math.isnan(kappa(np.ones(5), np.ones(5)))
    assert math.isnan(kappa(np.array([]), np.array([])))
    assert math.isnan(mean_interval(np.array([]), 100, 0).value)
    assert mean_interval(np.array([2.0]), 100, 0).value == 2.0
    assert mean_interval(np.full(5, 2.0), 100, 0) == mean_interval(np.full(5, 2.0), 100, 1)
    assert wilcoxon(np.zeros(5)) == 1.0
    corrected = holm([0.01, math.nan, 0.02])
    assert corrected[0] == pytest.approx(0.02)
    assert math.isnan(corrected[1])


def test_the_detectable_difference_has_the_power_it_names() -> None:
    generator = np.random.default_rng(0)
    n, discordant = 400, 0.3
    difference = detectable_difference(n, discordant, 1)
    gained, lost = (discordant + difference) / 2, (discordant - difference) / 2
    draws = generator.multinomial(n, [gained, lost, 1 - discordant], size=800)
    power = np.mean([exact_mcnemar(int(a), int(b)) < 0.05 for a, b, _ in draws])
    assert 0.72 < power < 0.88
    assert detectable_difference(1600, discordant, 1) < difference < detectable_difference(n, discordant, 6)


@given(st.integers(1, 500), st.data())
def test_intervals_hold_their_estimate(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    low, high = wilson(k, n)
    assert -1e-12 <= low <= k / n + 1e-12 <= high + 2e-12 <= 1 + 3e-12


def table(solved: dict[str, list[bool | None]]) -> pd.DataFrame:
    rows = [
        {
            "variant": variant, "sample_id": f"s{number}", "valence": None, "correct": value, "compliant": True,
            "completion_tokens": 10 + number, "characters": 5, "steps": 2, "truncated": False, "efficiency": 0.5,
            "polarity": 0.0, "subjectivity": 0.0,
        }
        for variant, values in solved.items()
        for number, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"correct": "boolean", "variant": "string"})


SOLVED = table({"control": [True, True, False, False, None], "a": [True, False, True, True, True], "b": [False] * 5})


def test_paired_tests_use_the_samples_that_both_have() -> None:
    found = behaviour.paired_tests(SOLVED, 500, 0).set_index("variant")
    assert found.loc["a", ["n", "both", "gained", "lost", "neither"]].tolist() == [4, 1, 2, 1, 0]
    assert found.loc["a", "difference"] == pytest.approx(0.25)
    assert found.loc["b", ["gained", "lost"]].tolist() == [0, 2]
    assert (found["p_holm"] >= found["p"]).all()


def test_consistency_counts_who_solves_what() -> None:
    found = consistency.consistency(SOLVED).set_index(["variant", "other"])
    assert found["all_solve"].eq(0).all()
    assert found["none_solves"].eq(0).all()
    assert found.loc[("a", "a"), "alone"] == 2
    assert found.loc[("control", "control"), "alone"] == 1
    assert found.loc[("a", "control"), ["gained", "lost"]].tolist() == [2, 1]
    assert found.loc[("a", "control"), "agreement"] == pytest.approx(0.25)


def test_accuracy_and_characteristics_cover_every_variant() -> None:
    accuracy = behaviour.accuracy(SOLVED).set_index("variant")
    assert accuracy["n"].tolist() == [4, 5, 5]
    assert accuracy.loc["control", "difference"] == 0
    found = behaviour.characteristics(SOLVED, 200, 0)
    assert len(found) == 3 * len(behaviour.CHARACTERISTICS_OF)
    assert found.loc[found["variant"] == "control", "p"].isna().all()
