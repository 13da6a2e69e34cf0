"""Judges: agreement, how far answers give variants away, labels by people, and what they correct."""

from __future__ import annotations

from collections import Counter
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from emoprobe.analysis.behaviour import outcome_means
from emoprobe.analysis.guesses import guessing
from emoprobe.analysis.judges import agreement, position_columns, separability
from emoprobe.analysis.labels import LabelError, drawn_order, label_id, with_labels, write_answers_to_label
from emoprobe.analysis.origin_limits import judge_limits
from emoprobe.analysis.outcomes import outcomes_of
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.analysis.prediction_powered import LEAST_LABELS, UNSEEN_ERRORS, corrected_difference
from emoprobe.analysis.questions import asked_in
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.conversations.samples import counterpart, experiment_pairs, sample_ids
from emoprobe.report.statements.behaviour import comparisons
from emoprobe.report.statements.notes import notes
from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.tables import completed
from emoprobe.results.trajectory import AgentState, Trajectory
from tests.calibration import judges as simulated
from tests.calibration import preferences
from tests.judges import judge

NAN = float("nan")


def test_agreement_is_krippendorffs_alpha() -> None:
    # Binary data of two observers: Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), part A.
    first = pd.Series([0, 1, 0, 0, 0, 0, 0, 0, 1, 0], dtype="boolean")
    second = pd.Series([1, 1, 1, 0, 0, 1, 0, 0, 0, 0], dtype="boolean")
    assert agreement([first, second], "binary") == pytest.approx(0.095, abs=5e-4)
    # Four observers, with missing values: the same, part C, interval part by hand of the library's page.
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
    names = [
        pd.Series([None if value != value else f"c{value:.0f}" for value in row], dtype="string") for row in observers
    ]
    assert agreement(names, "category") == pytest.approx(0.743, abs=5e-4)
    assert agreement([pd.Series(row, dtype="Float64") for row in observers], "number") == pytest.approx(0.849, abs=5e-4)
    assert np.isnan(agreement([first], "binary"))
    assert np.isnan(agreement([first & False, second & False], "binary"))


def test_separability_is_that_of_words_on_other_questions() -> None:
    samples = [f"s_{number:04d}" for number in range(24)]
    rows = [(variant, sample) for variant in ("control", "joy") for sample in samples]
    table = pd.DataFrame(rows, columns=["variant", "sample_id"])
    alike = table.assign(completion=[f"It is {sample}." for _, sample in rows])
    apart = table.assign(completion=[f"{'Hurray, ' * (variant == 'joy')}it is {sample}." for variant, sample in rows])
    assert separability(apart) == pytest.approx(1.0)
    assert 0.3 < separability(alike) < 0.7
    assert np.isnan(separability(apart[apart["sample_id"] < "s_0010"]))
    # Such as those that were cut off within a thought.
    assert separability(table.assign(completion="")) == 0.5
    assert (
        0.3 < separability(alike.assign(completion=alike["completion"].where(alike["sample_id"] == "s_0000", ""))) < 0.7
    )


def test_a_correction_by_hand() -> None:
    human = np.array([1.0, 0.0, 1.0, 0.0, NAN, NAN, NAN, NAN])
    guess = np.array([1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, NAN])
    # λ = cov / var = 0.125 / 0.1875; errors 1/3, 0, 1, 0; the judge's mean 3/8.
    found = corrected_difference(human, guess, 1.0)
    assert float(found.value) == pytest.approx(2 / 3 * 3 / 8 + 1 / 3)
    errors = np.array([1 / 3, 0, 1, 0])
    influence = 2 / 3 * (np.nan_to_num(guess) - 3 / 8) / 8
    influence[:4] += (errors - errors.mean()) / 4
    error = np.sqrt((influence**2).sum() * 4 / 3 + UNSEEN_ERRORS / 16)
    assert float(found.high - found.value) == pytest.approx(3.182446 * error, rel=1e-6)
    # A judge that knows nothing takes no part; a constant one neither.
    useless = corrected_difference(human, np.zeros(8), 1.0)
    assert float(useless.value) == 0.5
    units = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    assert np.isnan(corrected_difference(human, guess, 1.0, groups=units).low)


QUESTIONS = 120


def experiment(tmp_path: Path, **keys: Any) -> tuple[Config, pd.DataFrame]:
    """Answers to 120 questions, of which people find the same 40 polite in each variant and the judge more of joy's."""
    config = parse_config(
        {
            "experiment": {"name": "one"},
            "dataset": {"samples": QUESTIONS},
            "variants": {"control": {}, "filler": {"text": "There are trees."}, "joy": {"text": "Hurray!"}},
            "graders": [judge(label="polite", **keys)],
        }
    )
    samples = [f"gsm8k_{number:04d}" for number in range(1, QUESTIONS + 1)]
    rows = [
        {
            "variant": variant,
            "sample_id": sample,
            "draw": 1,
            "valence": None,
            "failure": None,
            "paraphrase": 0,
            "question": f"Question {sample}?",
            "completion": f"<think>Hm.</think>Answer {sample}.",
            "outcome_polite": number % 3 == 0 or (variant == "joy" and number % 3 == 1),
        }
        for variant in config.variants
        for number, sample in enumerate(samples)
    ]
    return config, completed(pd.DataFrame(rows).astype({"outcome_polite": "boolean"}), "trajectories")


def labelled(tmp_path: Path, questions: list[str], variants: tuple[str, ...] = ("control", "filler", "joy")) -> str:
    path = tmp_path / "labels.csv"
    lines = [
        f"{variant},{sample},{str((int(sample[-4:]) - 1) % 3 == 0).lower()}"
        for sample in questions
        for variant in variants
    ]
    path.write_text("\n".join(["variant,sample,value", *lines]) + "\n")
    return str(path)


def said(config: Config, table: pd.DataFrame) -> dict[str, Any]:
    (outcome,) = outcomes_of(config)
    tests = paired_tests(with_labels(config, table), 0.1, ["filler"], outcomes=[outcome])
    return {one.about: one for one in comparisons(tests, outcome.margin, outcome.column)}


def test_a_judge_that_leans_is_described_without_labels_and_corrected_with_them(tmp_path: Path) -> None:
    config, table = experiment(tmp_path)
    about = "outcome_polite:joy-filler"
    alone = said(config, table)[about]
    assert alone.verdict == "note"
    assert "the rate of polite as judged by judge-x (polite) is described and not tested" in alone.text
    assert "no human labels correct the judge" in alone.text
    order = drawn_order(config, table["sample_id"])
    assert order != sorted(order)
    labels = labelled(tmp_path, order[:60])
    config, _ = experiment(tmp_path, labels=labels)
    found = said(config, table)[about]
    assert found.verdict == "equivalent_here"
    assert "as judged by" not in found.text
    assert "judged by judge-x (polite) and corrected by labels of 60 of them" in found.text
    few, _ = experiment(tmp_path, labels=labelled(tmp_path, order[: LEAST_LABELS - 1]))
    assert said(few, table)[about].verdict == "note"
    assert f"labels of the first {LEAST_LABELS - 1} questions do not suffice" in said(few, table)[about].text
    # Labels of questions that were chosen, or of one variant, are none.
    chosen, _ = experiment(tmp_path, labels=labelled(tmp_path, order[1:100]))
    assert "no human labels correct" in said(chosen, table)[about].text
    one_arm, _ = experiment(tmp_path, labels=labelled(tmp_path, order, ("joy",)))
    assert said(one_arm, table)[about].verdict == "note"
    # An answer that is missing could be anything.
    whole, _ = experiment(tmp_path, labels=labelled(tmp_path, order))
    gap = table.copy()
    gap.loc[gap.index[-1], ["completion", "outcome_polite"]] = [None, None]
    assert said(whole, gap)[about].verdict == "note"


def test_questions_of_an_earlier_look_keep_their_place_in_the_order() -> None:
    def order(samples: int, **analysis: Any) -> list[str]:
        values = {"experiment": {"name": "one"}, "dataset": {"samples": samples}, "analysis": analysis}
        config = parse_config(values)
        return drawn_order(config, sample_ids(config.dataset))

    looks = {32: 0.5, 96: 0.5}
    first, second = order(32, looks=looks), order(96, looks=looks)
    assert second[:32] == first != sorted(first)
    assert sorted(second) == sample_ids(
        parse_config({"experiment": {"name": "one"}, "dataset": {"samples": 96}}).dataset
    )
    assert second[32:] != sorted(second[32:])
    assert set(order(96)[:32]) != set(first)  # no look is registered: all questions are one draw


@pytest.mark.parametrize(
    ("name", "verdicts"),
    [
        ("leans by 20 %, no labels", {"note"}),
        ("leans by 20 %, 24 labels", {"note"}),
        ("leans by 20 %, 96 labels of 128", {"undecided", "equivalent"}),
    ],
)
def test_a_judge_that_leans_makes_no_difference(name: str, verdicts: set[str]) -> None:
    generator = np.random.default_rng(3)
    found = [simulated.said(simulated.WORLDS[name], generator) for _ in range(4)]
    assert {verdict for one in found for verdict in one.values()} <= verdicts


def test_a_planted_difference_is_told_with_labels() -> None:
    world = simulated.WORLDS["planted: 1.5 logits, leans by 10 %, 96 labels"]
    found = simulated.said(world, np.random.default_rng(3))
    assert found["outcome_x:tone0-filler"] == "different"


def test_answers_to_label_come_in_the_drawn_order_without_their_variant(tmp_path: Path) -> None:
    config, table = experiment(tmp_path)
    layout = Layout(tmp_path)
    for row in table.to_dict("records"):  # joy begins each answer, which nobody is to see
        begun = "Oh joy! " if row["variant"] == "joy" else ""
        answer = {"role": "assistant", "content": begun + row["completion"]}
        state = AgentState(prefill=len(begun) or None)
        Trajectory([{"role": "user", "content": row["question"]}, answer], state).write(
            layout.pair(row["variant"], row["sample_id"])
        )
    write_answers_to_label(config, layout, table)
    listed = pd.read_csv(layout.to_label, dtype=str, keep_default_na=False)
    assert list(listed.columns) == ["question_number", "id", "question", "answer", "value"]
    assert len(listed) == 3 * QUESTIONS
    first = drawn_order(config, table["sample_id"])[0]
    assert set(listed["question"][:3]) == {f"Question {first}?"}
    assert set(listed["answer"][:3]) == {f"Answer {first}."}
    assert set(listed["id"][:3]) == {label_id(config.experiment.seed, variant, first) for variant in config.variants}
    assert not any(word in layout.to_label.read_text() for word in ("control", "joy", "Hm."))
    # Filled in, it is a file of labels.
    listed["value"] = "true"
    listed.to_csv(tmp_path / "filled.csv", index=False)
    filled, _ = experiment(tmp_path, labels=str(tmp_path / "filled.csv"))
    assert with_labels(filled, table)["human_polite"].all()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("variant,sample\njoy,gsm8k_0001\n", "needs the columns"),
        ("variant,sample,value\njoy,gsm8k_0001,perhaps\n", "line 2: 'perhaps' is no value"),
        ("variant,sample,value\nrage,gsm8k_0001,true\n", "line 2: is of no answer"),
        ("id,value\n0123,true\n", "line 2: is of no answer"),
        ("variant,sample,value\njoy,gsm8k_0001,true\njoy,gsm8k_0001,false\n", "line 3: labels an answer twice"),
        (None, "cannot be read"),
    ],
)
def test_files_of_labels_that_are_refused(tmp_path: Path, content: str | None, words: str) -> None:
    path = tmp_path / "labels.csv"
    if content is not None:
        path.write_text(content)
    config, table = experiment(tmp_path, labels=str(path))
    with pytest.raises(LabelError, match=words):
        with_labels(config, table)


PAIRED = {"control": {}, "filler": {"text": "There are trees."}, "joy": {"text": "Hurray!"}}


def compared(wins: int, losses: int, ties: int, lost: int = 0) -> tuple[Config, pd.DataFrame]:
    """Answers of which a judge prefers so many of joy's to filler's, and control's to filler's the other way round."""
    config = parse_config(
        {
            "experiment": {"name": "one"},
            "variants": PAIRED,
            "graders": [judge(label="better", compare_with="filler")],
        }
    )
    values = [1.0] * wins + [0.0] * losses + [0.5] * ties + [None] * lost
    rows = [
        {
            "variant": variant,
            "sample_id": f"gsm8k_{number:04d}",
            "draw": 1,
            "valence": None,
            "failure": None,
            "paraphrase": 0,
            "judged_better": None if variant == "filler" else "unusable" if value is None else "value",
            "orders_better": None if variant == "filler" or value is None else "same",
            "outcome_better": None
            if variant == "filler" or value is None
            else value
            if variant == "joy"
            else 1 - value,
        }
        for variant in PAIRED
        for number, value in enumerate(values)
    ]
    return config, completed(pd.DataFrame(rows).astype({"outcome_better": "Float64"}), "trajectories")


def test_a_preference_is_described_against_its_reference() -> None:
    config, table = compared(40, 10, 10)
    (outcome,) = outcomes_of(config)
    assert outcome.margin is None
    tests = paired_tests(table, 0.1, outcomes=[outcome])
    rows = {(row["variant"], row["reference"]): row for row in tests.to_dict("records")}
    # Neither joy-control, which was not asked, nor any row twice.
    assert sorted(rows) == [("filler", "control"), ("joy", "filler")]
    assert len(tests) == 2
    joy, filler = rows["joy", "filler"], rows["filler", "control"]
    assert (joy["difference"], joy["n"], joy["missing"]) == (0.5, 60, 0)
    assert filler["difference"] == pytest.approx(0.5)  # filler is preferred to control as joy is to filler
    # A judge that leans towards a tone prefers it, whatever the answers are.
    assert pd.isna(joy["p"])
    assert pd.isna(joy["p_equivalent"])
    means = outcome_means(table, [outcome]).set_index("variant")
    assert means["mean"].dropna().to_dict() == {"control": 0.25, "joy": 0.75}
    assert means["missing"].to_dict() == {"control": 0, "filler": 60, "joy": 0}
    said = {one.about: one for one in comparisons(tests, outcome.margin, outcome.column)}
    text = said["outcome_better:joy-filler"].text
    assert said["outcome_better:joy-filler"].verdict == "note"
    low, high = (50 * (1 + joy[end]) for end in ("low", "high"))
    assert text == (
        "As judged by judge-x (better), answers with this text of joy are preferred to those with this text of filler "
        f"in 75.0 % of comparisons [{low:.1f}, {high:.1f}], a tie counted as half of one; this is described and not "
        "tested, as no human labels correct the judge, which may lean towards a tone (60 questions)."
    )
    assert said["outcome_better:filler-control"].text.startswith(
        "Secondary: as judged by judge-x (better), answers with this text of filler are preferred to those with no "
        "added text (control) in 75.0 %"
    )


def test_a_preference_of_few_pairs_has_no_interval() -> None:
    config, table = compared(3, 1, 0)
    tests = paired_tests(table, 0.1, ["filler"], outcomes=outcomes_of(config))
    (one, _) = comparisons(tests, None, "outcome_better")
    assert "in 25.0 % of comparisons (no interval, fewer than 8 questions), a tie counted" in one.text


def test_a_preference_that_is_lost_could_be_any() -> None:
    def interval(*counts: int) -> tuple[float, float]:
        config, table = compared(*counts)
        tests = paired_tests(table, 0.1, ["filler"], outcomes=outcomes_of(config))
        assert set(tests["missing"]) == {counts[3] if len(counts) > 3 else 0}
        (joy,) = tests[tests["variant"] == "joy"].to_dict("records")
        return joy["low"], joy["high"]

    known, lost, by_position = interval(41, 19, 20), interval(41, 19, 20, 20), interval(0, 0, 80)
    assert known[0] > 0
    assert lost[0] < 0
    assert lost[1] > known[1]
    assert by_position[0] < 0 < by_position[1]


@pytest.mark.parametrize(
    ("variant", "number", "compared"),
    [("joy", 1, 1), ("joy", 2, 2), ("calm", 2, 2), ("calm", 3, 3), ("calm", 5, 1), ("calm", 6, 2)],
)
def test_an_answer_is_compared_with_the_reference_s_of_the_same_ask(variant: str, number: int, compared: int) -> None:
    config = parse_config(
        {
            "variants": {
                "control": {},
                "filler": {"texts": ["It is noon.", "It is late."], "asks": 2},
                "calm": {"texts": ["Rest.", "Breathe.", "Sit."], "asks": 3},
                "joy": {"text": "Hurray!"},
            },
            "generation": {"draws": 2, "temperature": 0.5},
            "graders": [judge(compare_with="filler")],
        }
    )
    sample = sample_ids(config.dataset)[0]
    assert {(variant, draw_id(sample, number)), ("filler", draw_id(sample, compared))} <= {*experiment_pairs(config)}
    assert counterpart(config, "filler", draw_id(sample, number)) == draw_id(sample, compared)


def test_texts_that_the_judge_did_not_see_narrow_no_interval() -> None:
    config, table = compared(40, 10, 10)
    table = table.assign(paraphrase=[number % 30 for number in range(60)] * 3)
    asked = table[table["variant"] == "filler"].assign(paraphrase=lambda rows: rows["paraphrase"] + 30)
    widths = []
    for asks in (1, 3):
        more = [asked.assign(draw=draw, paraphrase=asked["paraphrase"] + draw) for draw in range(2, asks + 1)]
        together = pd.concat([table, *more], ignore_index=True)
        together["asks"] = together["variant"].map({"filler": asks}).fillna(1).astype("Int64")
        tests = paired_tests(together, 0.1, ["filler"], outcomes=outcomes_of(config))
        (joy,) = tests[tests["variant"] == "joy"].to_dict("records")
        widths.append(joy["high"] - joy["low"])
    assert widths[0] == pytest.approx(widths[1])


def test_a_judge_that_decides_by_position_is_recognised() -> None:
    came = ["same"] * 80 + ["first"] * 15 + ["second"] * 3 + ["tie"] * 2 + [None]
    found = position_columns(pd.Series(came, dtype="string"), pd.Series(range(len(came))))
    assert {key: found[key] for key in ("same_orders", "first_orders", "second_orders")} == {
        "same_orders": 80, "first_orders": 15, "second_orders": 3,
    }  # fmt: skip
    assert found["position_p"] == pytest.approx(2 * binom.cdf(3, 18, 0.5))
    # Pairs of one question have an answer in common: fifteen of them are one reason.
    assert position_columns(pd.Series(["first"] * 15), pd.Series(["q1"] * 15))["position_p"] == 1.0
    copies = pd.DataFrame({"sample_id": range(15), "question": ["What is 1 + 1?"] * 14 + [None]})
    assert position_columns(pd.Series(["first"] * 15), asked_in(copies))["position_p"] == 0.5
    assert np.isnan(position_columns(pd.Series(["same", "tie"]), pd.Series(["q1", "q2"]))["position_p"])


@pytest.mark.parametrize("name", ["no preference, by position alone", "planted: -1 logit, first in 20 %"])
def test_simulated_preferences(name: str) -> None:
    world, generator = preferences.WORLDS[name], np.random.default_rng(0)
    found = preferences.tests(world, preferences.simulate(world, generator))
    truth = preferences.truth(world)
    assert all(row["low"] < truth[tone] < row["high"] for tone, row in found.items())
    assert (truth["tone0"] < -0.1) == (world.shift < 0)


def test_right_guesses_by_chance_are_those_of_every_order_of_the_variants() -> None:
    variants = ["a", "b", "c", "d"]
    guesses = {"q1": ["a", "a", "c", "b"], "q2": ["d", "d", "d", "d"], "q3": ["b", "a", "d", "c"]}
    rows = [
        {"variant": variant, "sample_id": question, "draw": 1, "guess": named}
        for question, names in guesses.items()
        for variant, named in zip(variants, names, strict=True)
    ]
    # A guess is lost, and a question has one guess alone, which says nothing.
    rows[3]["guess"] = None
    rows.append({"variant": "a", "sample_id": "q4", "draw": 1, "guess": "a"})
    found = guessing(pd.DataFrame(rows), "guess")
    counts = Counter(
        sum(
            named == guess
            for question, order in zip(guesses, orders_, strict=True)
            for named, guess in zip(order, guesses[question], strict=False)
        )
        for orders_ in product(permutations(variants[:3]), permutations(variants), permutations(variants))
    )
    everything = sum(counts.values())
    assert (found["guesses"], found["guessed"]) == (11, 3 / 11)  # of q1 a and c, of q2 d
    assert found["guess_chance"] == pytest.approx(sum(k * n for k, n in counts.items()) / everything / 11)
    assert found["guess_p"] == pytest.approx(sum(n for k, n in counts.items() if k >= 3) / everything)
    assert guessing(pd.DataFrame(rows[-1:]), "guess") == {"guesses": 0}
    # Copies of a question under other ids are no further questions.
    once = pd.DataFrame(rows).assign(question=lambda table: table["sample_id"].map("What is {}?".format))
    twice = pd.concat([once, once.assign(sample_id=once["sample_id"].astype(str) + "-again")], ignore_index=True)
    assert guessing(twice, "guess") == found


@pytest.mark.parametrize(("knows", "words"), [(0.5, "give their variant away, so"), (0.0, "it is not shown that")])
def test_the_report_says_whether_a_judge_guesses_variants(knows: float, words: str) -> None:
    generator, variants = np.random.default_rng(3), ["control", "filler", "joy"]
    rows = [
        {
            "variant": variant,
            "sample_id": f"s_{number:04d}",
            "draw": 1,
            # It would name control too often, which is right no more often than by chance.
            "guess": variant if generator.random() < knows else generator.choice(variants, p=[0.8, 0.1, 0.1]),
        }
        for number in range(60)
        for variant in variants
    ]
    row = {"judge": "judge_guess", "model": "judge-x", "trait": None, **guessing(pd.DataFrame(rows), "guess")}
    (one,) = notes(judge_limits(pd.DataFrame([row])))
    assert (one.about, one.verdict, one.estimate) == ("data:guess", "note", row["guessed"])
    assert words in one.text
    assert one.text.startswith(
        f"judge-x (judge_guess) guesses the variant of {row['guessed']:.1%} of 180 answers right"
    )
    assert row["guess_chance"] == pytest.approx(1 / 3)
