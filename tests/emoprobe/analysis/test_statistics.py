"""Statistics agree with formulas written out by hand, and with other libraries."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from emoprobe.analysis import behaviour
from emoprobe.analysis.estimates import CONTINUITY, UNSEEN, difference, mean, tango_score
from emoprobe.analysis.format_noise import format_noise
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.analysis.statistics import clopper_pearson, holm, kappa
from emoprobe.results.tables import completed
from tests.calibration.trajectories import Scene, simulate

SEEDS = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_clopper_pearson_is_that_of_statsmodels(seed: int) -> None:
    generator = np.random.default_rng(seed)
    n = int(generator.integers(1, 400))
    k = int(generator.integers(0, n + 1))
    low, high = clopper_pearson(k, n)
    assert (float(low), float(high)) == pytest.approx(proportion_confint(k, n, method="beta"))


@pytest.mark.parametrize("seed", SEEDS)
def test_of_one_text_p_is_mcnemars(seed: int) -> None:
    generator = np.random.default_rng(seed)
    flips = generator.choice([-1.0, 0.0, 1.0], size=int(generator.integers(8, 200)), p=[0.2, 0.6, 0.2])
    gained, lost = int((flips == 1).sum()), int((flips == -1).sum())
    n = len(flips)
    score = tango_score(np.array(float(gained)), np.array(float(lost)), np.array(float(n)), np.array(0.0))
    expected = mcnemar([[0, gained], [lost, 0]], exact=False, correction=False).pvalue if gained + lost else 1.0
    assert 2 * stats.norm.sf(abs(float(score))) == pytest.approx(expected)
    corrected = max(0.0, abs(gained - lost) - CONTINUITY) / math.sqrt(max(1, gained + lost))
    assert float(difference(flips, None, None, 0.1).p) == pytest.approx(2 * stats.norm.sf(corrected))


def test_of_one_text_the_test_keeps_its_size() -> None:
    """The exact size, over all ways that so many flips can fall."""
    for n in (8, 13, 20, 50):
        counts = np.arange(n + 1)
        for discordance in (0.05, 0.2, 0.5, 0.8):
            size = 0.0
            for flips, chance in zip(counts, stats.binom.pmf(counts, n, discordance), strict=True):
                gained = np.arange(flips + 1)
                pairs = [np.asarray(each, float) for each in (gained, flips - gained, n, 0.0)]
                score = tango_score(pairs[0], pairs[1], pairs[2], pairs[3], CONTINUITY)
                rejected = 2 * stats.norm.sf(np.abs(score)) < 0.05
                size += chance * stats.binom.pmf(gained, flips, 0.5)[rejected].sum()
            assert size <= 0.05, (n, discordance)


@pytest.mark.parametrize("seed", range(20))
def test_tangos_score_has_the_likeliest_share_under_the_supposed_difference(seed: int) -> None:
    generator = np.random.default_rng(seed)
    gained, lost, alike = generator.integers(1, 30, 3)
    n, supposed = gained + lost + alike, float(generator.uniform(-0.5, 0.5))

    def unlikely(share: float) -> float:
        return -float(
            gained * np.log(share + supposed) + lost * np.log(share) + alike * np.log(1 - 2 * share - supposed)
        )

    limits = (max(0.0, -supposed) + 1e-9, (1 - supposed) / 2 - 1e-9)
    share = optimize.minimize_scalar(unlikely, bounds=limits, method="bounded", options={"xatol": 1e-12}).x
    expected = (gained - lost - n * supposed) / math.sqrt(n * (2 * share + supposed * (1 - supposed)))
    found = tango_score(*(np.array(float(value)) for value in (gained, lost, n, supposed)))
    assert float(found) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("seed", range(20))
def test_over_texts_it_is_students_t(seed: int) -> None:
    generator = np.random.default_rng(seed)
    values, texts = generator.normal(0.3, 1.0, 96), np.arange(96) % 8
    found = difference(values, texts, texts, math.nan, share=False)
    means = values.reshape(12, 8).mean(axis=0)
    assert float(found.p) == pytest.approx(stats.ttest_1samp(means, 0).pvalue)
    low, high = stats.ttest_1samp(means, 0).confidence_interval()
    assert (float(found.low), float(found.high)) == pytest.approx((low, high))


def test_interval_and_p_agree() -> None:
    generator = np.random.default_rng(0)
    flips = generator.choice([-1.0, 0.0, 1.0], size=(400, 64), p=[0.1, 0.65, 0.25])
    texts = np.arange(64) % 32
    for labels in (None, texts):
        found = difference(flips, labels, labels, 0.1)
        excluded = (found.low > 0) | (found.high < 0)
        assert ((found.p < 0.05) == excluded).all()
        assert 0.1 < excluded.mean() < 0.99


def test_no_flips_leave_room_for_some() -> None:
    texts = np.arange(100) % 25
    found = difference(np.zeros(100), texts, texts, 0.1)
    assert (float(found.low), float(found.high)) == pytest.approx((-UNSEEN / 25, UNSEEN / 25))
    assert float(found.p) == 1.0
    one = difference(np.zeros(40), None, None, 0.1)
    assert float(one.low) < -0.05
    assert float(one.high) > 0.05


def test_too_little_gives_no_interval() -> None:
    assert np.isnan(difference(np.ones(7), None, None, 0.1).low)
    two = np.arange(40) % 2
    assert np.isnan(difference(np.ones(40), two, two, 0.1).low)
    assert np.isnan(mean(np.full(7, 1.0), None, True).low)
    assert np.isnan(difference(np.full(20, np.nan), None, None, 0.1).p)
    same = mean(np.full(20, 3.0), None, False)
    assert float(same.value) == 3.0
    assert np.isnan(same.low)


def test_texts_out_of_step_count_both_sides() -> None:
    """Filler texts that differ are noise of the comparison, however many questions there are."""
    index = np.arange(4000)
    own, other = index % 8, index % 3
    values = np.array([0.3, -0.3, 0.0])[other]
    crossed = difference(values, own, other, math.nan, share=False)
    assert float(crossed.high - crossed.low) > 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_holm_is_that_of_statsmodels(seed: int) -> None:
    p = np.random.default_rng(seed).uniform(0, 0.2, 7)
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])


@pytest.mark.parametrize("seed", SEEDS)
def test_kappa_is_its_formula(seed: int) -> None:
    generator = np.random.default_rng(seed)
    first, second = generator.integers(0, 2, (2, 50))
    observed = float((first == second).mean())
    chance = first.mean() * second.mean() + (1 - first.mean()) * (1 - second.mean())
    assert kappa(first, second) == pytest.approx((observed - chance) / (1 - chance))


def test_awkward_inputs() -> None:
    assert [float(end) for end in clopper_pearson(0, 0)] == [0.0, 1.0]
    assert math.isnan(kappa(np.ones(5), np.ones(5)))
    assert math.isnan(kappa(np.array([]), np.array([])))
    corrected = holm([0.01, math.nan, 0.02])
    assert corrected[0] == pytest.approx(0.02)
    assert math.isnan(corrected[1])
    assert len(holm([])) == 0


@given(st.integers(8, 300), st.data())
def test_intervals_hold_their_estimate(n: int, data: st.DataObject) -> None:
    gained = data.draw(st.integers(0, n))
    lost = data.draw(st.integers(0, n - gained))
    flips = np.array([1.0] * gained + [-1.0] * lost + [0.0] * (n - gained - lost))
    for labels in (None, np.arange(n) % 8):
        found = difference(flips, labels, labels, 0.1)
        assert -1 <= float(found.low) <= float(found.value) + 1e-9
        assert float(found.value) - 1e-9 <= float(found.high) <= 1


def table(solved: dict[str, list[list[bool | None]]], texts: int = 0) -> pd.DataFrame:
    """Variants with their questions' draws; `texts` of every variant but control."""
    rows = [
        {
            "variant": variant,
            "sample_id": f"s{number}",
            "draw": draw,
            "valence": None,
            "paraphrase": number % texts if texts and variant != "control" else None,
            "correct": value,
            "lenient": value,
            "compliant": True,
            "truncated": False,
            "completion_tokens": 10 + number,
            "steps": 2,
            "polarity": 0.0,
            "subjectivity": 0.0,
            "extraction": None if value is None else "marker",
            "failure": "no answer" if value is None else None,
        }
        for variant, questions in solved.items()
        for number, draws in enumerate(questions)
        for draw, value in enumerate(draws, 1)
    ]
    typed = pd.DataFrame(rows).astype(
        {"correct": "boolean", "lenient": "boolean", "variant": "string", "paraphrase": "Int64", "failure": "string"}
    )
    return completed(typed, "trajectories")


def single(**solved: list[bool | None]) -> pd.DataFrame:
    return table({variant: [[value] for value in values] for variant, values in solved.items()})


SOLVED = single(control=[True, True, False, False, True] * 2, a=[True, False, True, True, True] * 2, b=[False] * 10)


def test_paired_tests_use_the_questions_that_both_have() -> None:
    """A question that one of them lacks is in no count, and widens the interval by what its answer might be."""
    answers = SOLVED[~((SOLVED["variant"] == "control") & (SOLVED["sample_id"] == "s9"))]
    found, complete = (paired_tests(each, 0.1).set_index(["variant", "measure"]) for each in (answers, SOLVED))
    assert found.loc[("a", "correct"), ["n", "both", "gained", "lost", "neither"]].tolist() == [9, 3, 4, 2, 0]
    assert found.loc[("a", "correct"), "missing"] == 1
    assert found.loc[("a", "correct"), "difference"] == pytest.approx(2 / 9)
    assert found.loc[("a", "correct"), "low"] <= complete.loc[("a", "correct"), "low"]
    tested = found[found["tested"]]
    assert (tested["p_holm"] >= tested["p"]).all()
    assert found["family"].tolist() == ["primary", "secondary", "secondary"] * 2
    untruncated = found.xs("untruncated", level="measure")
    assert untruncated["verdict"].eq("note").all()
    assert untruncated[["p", "low"]].isna().all(axis=None)


def test_every_variant_meets_every_reference() -> None:
    answers = single(control=[True] * 8, filler=[True] * 8, joy=[False] * 8, fear=[True] * 8)
    found = paired_tests(answers, 0.1)
    strict = found[found["measure"] == "correct"]
    pairs = [f"{row.variant}-{row.reference} {row.family}" for row in strict.itertuples()]
    assert pairs == [
        "joy-filler primary", "fear-filler primary", "joy-control secondary", "fear-control secondary",
        "filler-control secondary",
    ]  # fmt: skip
    other = paired_tests(answers, 0.1, ["filler", "control"])
    assert other[other["family"] == "primary"]["reference"].unique().tolist() == ["control"]
    assert paired_tests(single(control=[True] * 8), 0.1).empty


def test_a_verdict_holds_however_failures_would_have_gone() -> None:
    right, wrong = [True] * 20, [False] * 20
    clear = paired_tests(single(control=right, a=wrong), 0.1).iloc[0]
    assert clear["verdict"] == "different_here"
    # Of the 12 questions that control does not solve, the variant may have solved every one.
    missing = paired_tests(single(control=[*right[:8], *wrong[:12]], a=[*wrong[:8], *[None] * 12]), 0.1).iloc[0]
    assert missing["n"] == 8
    assert missing["verdict"] == "undecided"
    assert missing["low"] <= -0.9 <= 0 <= missing["high"]


def test_draws_are_no_questions() -> None:
    """Copies of one answer add nothing to what is known of the questions."""
    generator = np.random.default_rng(0)
    answers = {name: generator.integers(0, 2, 24).astype(bool).tolist() for name in ("control", "a")}
    found = [
        paired_tests(table({name: [[value] * draws for value in own] for name, own in answers.items()}), 0.1).iloc[0]
        for draws in (1, 5)
    ]
    assert found[0]["n"] == found[1]["n"] == 24
    assert found[1]["low"] == pytest.approx(found[0]["low"], abs=0.05)


def test_consistency_counts_who_solves_what() -> None:
    found = behaviour.consistency(SOLVED).set_index(["variant", "other"])
    assert found["all_solve"].eq(0).all()
    assert found["none_solves"].eq(0).all()
    assert found.loc[("a", "a"), "alone"] == 4
    assert found.loc[("control", "control"), "alone"] == 2
    assert found.loc[("a", "control"), ["gained", "lost"]].tolist() == [4, 2]
    assert found.loc[("a", "control"), "agreement"] == pytest.approx(0.4)
    assert found["own_agreement"].isna().all()


def test_draws_give_flips_their_noise_floor() -> None:
    generator = np.random.default_rng(1)
    answers = {name: generator.integers(0, 2, (400, 3)).astype(bool).tolist() for name in ("control", "a")}
    found = behaviour.consistency(table(answers)).set_index(["variant", "other"])
    assert found.loc[("a", "a"), "agreement"] == pytest.approx(0.5, abs=0.06)
    assert found.loc[("a", "control"), "own_agreement"] == pytest.approx(0.5, abs=0.06)
    assert found.loc[("a", "a"), "kappa"] == pytest.approx(0, abs=0.12)
    steady = {name: [[True] * 3, [False] * 3] * 10 for name in ("control", "a")}
    assert behaviour.consistency(table(steady))["own_agreement"].eq(1).all()


def test_accuracy_and_characteristics_cover_every_variant() -> None:
    accuracy = behaviour.accuracy(SOLVED).set_index("variant")
    assert accuracy["n"].tolist() == [10, 10, 10]
    assert accuracy.loc["control", "marker"] == 1
    found = behaviour.characteristics(SOLVED)
    assert len(found) == 3 * len(behaviour.CHARACTERISTICS_OF)
    assert found.loc[found["variant"] == "control", "p"].isna().all()
    assert found.loc[found["variant"] == "a", "reference"].eq("control").all()


def test_failures_bound_the_accuracy() -> None:
    found = behaviour.accuracy(single(control=[True] * 6 + [False] * 2 + [None] * 2)).iloc[0]
    assert (found["n"], found["failures"]) == (8, 2)
    assert (found["if_failures_wrong"], found["accuracy"], found["if_failures_right"]) == (0.6, 0.75, 0.8)


def test_no_measure_is_tested_twice() -> None:
    assert {"efficiency", "characters"}.isdisjoint(behaviour.CHARACTERISTICS_OF)


def asked(n: int, texts: int, asks: int, seed: int = 0) -> pd.DataFrame:
    """A tone with a text a question, and a filler that is asked several times."""
    scene = Scene(n, (0.6,), texts=texts, text_deviation=1.0, asks=asks)
    return simulate(scene, np.random.default_rng(seed))


def test_all_asks_of_a_reference_count() -> None:
    """The mean of the asks is compared; its variance is that of questions and texts, crossed, from first principles."""
    n, asks = 60, 3
    answers = asked(n, 64, asks)
    row = paired_tests(answers, 0.1).iloc[0]
    tone = answers[answers["variant"] == "tone0"].set_index("sample_id")["correct"].astype(float)
    filler = answers[answers["variant"] == "filler"]
    observations = tone[filler["sample_id"]].to_numpy() - filler["correct"].to_numpy(dtype=float)
    means = filler.groupby("sample_id")["correct"].mean().astype(float)
    assert row["difference"] == pytest.approx((tone - means).mean())
    assert row["n"] == n
    assert row["gained"] + row["lost"] + row["both"] + row["neither"] == pytest.approx(n)
    assert (row["scope"], row["unit"], row["reference_texts"]) == ("tone", "texts", filler["paraphrase"].nunique())

    def clustered(labels: pd.Series) -> float:
        sums = pd.Series(observations - observations.mean()).groupby(labels.to_numpy()).sum()
        return float((sums**2).sum()) / len(observations) ** 2 * len(sums) / (len(sums) - 1)

    pairs = filler["sample_id"].astype(str) + " " + filler["paraphrase"].astype(str)
    parts = [clustered(labels) for labels in (filler["sample_id"], filler["paraphrase"], pairs)]
    variance = max(parts[0] + parts[1] - parts[2], *parts[:2])
    units = min(n, filler["paraphrase"].nunique())
    quantile = stats.t.ppf(0.975, units - 1)
    half = quantile * np.sqrt(variance + (UNSEEN / (quantile * units)) ** 2)
    # The interval holds Student's, and no more than Hall's correction of it.
    assert row["low"] <= row["difference"] - half + 1e-9
    assert row["high"] >= row["difference"] + half - 1e-9
    assert row["high"] - row["low"] < 2.2 * half


def test_asks_narrow_the_interval_and_lost_ones_do_not() -> None:
    one, three = (paired_tests(asked(400, 10_000, asks), 0.1).iloc[0] for asks in (1, 3))
    assert three["high"] - three["low"] < 0.92 * (one["high"] - one["low"])
    # Every ask has a text of its own, so that the question is the unit.
    assert three["unit"] == one["unit"] == "questions"
    answers = asked(40, 64, 3)
    gone = answers[~((answers["variant"] == "filler") & (answers["draw"] == 3))]
    found = paired_tests(gone, 0.1).iloc[0]
    assert found["missing"] == 40
    complete = paired_tests(answers, 0.1).iloc[0]
    assert found["low"] <= complete["low"] <= complete["high"] <= found["high"]


def test_of_two_variants_that_are_asked_several_times_nothing_is_claimed_in_general() -> None:
    answers = asked(64, 64, 2)
    both = pd.concat([answers, answers[answers["variant"] == "filler"].assign(variant="other")])
    found = paired_tests(both, 0.1, ["filler"]).set_index(["variant", "measure"])
    assert found.loc[("tone0", "correct"), "scope"] == "tone"
    assert found.loc[("other", "correct"), "scope"] == "texts"


def test_agreement_counts_all_asks() -> None:
    answers = table({"filler": [[True, False, True]] * 8, "a": [[True]] * 8})
    answers["asks"] = answers["variant"].map({"filler": 3, "a": 1})
    found = behaviour.consistency(answers).set_index(["variant", "other"])
    assert found.loc[("a", "filler"), "agreement"] == pytest.approx(2 / 3)
    assert found.loc[("filler", "a"), "gained"] == 0
    assert found.loc[("filler", "a"), "lost"] == pytest.approx(8 / 3)
    assert found.loc[("filler", "filler"), "agreement"] == pytest.approx(1 / 3)
    # There is one draw of each text, so that sampling alone is unknown.
    assert found["own_agreement"].isna().all()


def test_format_noise_takes_bounds_that_hold_together() -> None:
    scene = Scene(400, (0.5, 0.75), formats=(0.5, 0.75), texts=10_000)
    answers = simulate(scene, np.random.default_rng(3))
    found = format_noise(answers).set_index("variant")
    assert found["kind"].tolist() == ["format", "format", "tone", "tone"]
    assert found["within"].tolist()[2:] == [True, False]
    assert ((found["least"] <= found["difference"].abs()) & (found["difference"].abs() <= found["most"])).all()
    wide = {name: max(-row["low"], row["high"]) for name, row in found.iterrows()}
    assert all(row["most"] > wide[name] for name, row in found.iterrows())
    assert not format_noise(answers, weight=None)["within"].any()
    # Formats are no tones: they are in no family of tests.
    tests = paired_tests(answers, 0.1)
    assert not tests["variant"].str.startswith("reformatted").any()
    shapes = behaviour.characteristics(answers)
    assert shapes[shapes["variant"].str.startswith("reformatted")]["p"].isna().all()
    assert format_noise(asked(40, 64, 1)).empty
