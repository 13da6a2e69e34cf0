"""What the grader makes of awkward completions."""

import json
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoprobe.tasks.grading import efficiency, extract, grade, is_compliant, visible
from emoprobe.tasks.numbers import canonical, find_numbers, parse_number

SHARED_GSM8K = Path(__file__).parents[4] / "shared/data/gsm8k"

# completion → extracted answer in canonical notation (None: none), whether it is in the form asked for
CASES: list[tuple[str, str | None, bool]] = [
    # the form asked for
    ("Answer: 42", "42", True),
    ("Answer: [42]", "42", True),
    ("Answer: [42].", "42", True),
    ("Answer: 42.", "42", True),
    ("Answer:42", "42", True),
    ("  Answer:   [ 42 ]  ", "42", True),
    ("First 3 + 4 = 7.\nThen 7 * 2 = 14.\nAnswer: 14", "14", True),
    ("Answer: 14\n\n", "14", True),
    ("Answer: -3", "-3", True),
    ("Answer: −3", "-3", True),
    ("Answer: +3", "3", True),
    ("Answer: 1,234", "1234", True),
    ("Answer: 1,234,567.50", "1234567.5", True),
    ("Answer: $1,234.50", "1234.5", True),
    ("Answer: $-5", "-5", True),
    ("Answer: -$5", "-5", True),
    ("Answer: €5", "5", True),
    ("Answer: 5€", "5", True),
    ("Answer: £20", "20", True),
    ("Answer: \\$20", "20", True),
    ("Answer: 45%", "45", True),
    ("Answer: 45 %", "45", True),
    ("Answer: 3/4", "0.75", True),
    ("Answer: 1/3", "1/3", True),
    ("Answer: 3 1/2", "3.5", True),
    ("Answer: 3½", "3.5", True),
    ("Answer: .5", "0.5", True),
    ("Answer: 1.5e3", "1500", True),
    ("Answer: 007", "7", True),
    ("Answer: 2.50", "2.5", True),
    # an answer, in some other form
    ("answer: 42", "42", False),
    ("ANSWER: 42", "42", False),
    ("Final Answer: 42", "42", False),
    ("Answer = 42", "42", False),
    ("**Answer: 42**", "42", False),
    ("Answer: **42**", "42", False),
    ("**Answer:** 42", "42", False),
    ("`Answer: 42`", "42", False),
    ("Answer: 12 apples", "12", False),
    ("Answer: [12 apples]", "12", False),
    ("Answer: [12] dollars", "12", False),
    ("Answer: (12)", "12", False),
    ("Answer: {12}", "12", False),
    ("Answer: x = 12", "12", False),
    ("Answer: 5 + 3 = 8", "8", False),
    ("Answer: about 12", "12", False),
    ("Answer: 12 and that is all.", "12", False),
    ("Answer: 12\nI hope this helps!", "12", False),
    ("Answer: 5 hours 30 minutes", "5", False),
    # several answers: the last final one counts
    ("Answer: 5\nWait, no.\nAnswer: 6", "6", True),
    ("#### 5 #### 6", "6", False),
    ("The answer is 5. No, the answer is 6.", "6", False),
    ("Answer: 5. I checked 3 times.", "5", False),
    ("\\boxed{5} so Answer: 6", "6", False),
    ("Answer: 6, that is \\boxed{5}", "5", False),
    # a marker with nothing after it
    ("Answer: [number]", None, False),
    ("It is 5.\nAnswer: [number]", "5", False),
    ("Answer:\n12", "12", False),
    ("Answer: 3\nAnswer: unknown", "3", False),
    # GSM8K's own notation
    ("Some work\n#### 1,234", "1234", False),
    ("####5", "5", False),
    ("#### -5", "-5", False),
    ("#### $18", "18", False),
    ("2 * 3 = 6\nA: 6", "6", False),
    ("24 * 2 points/answer = 48 points.\nWith the bonus 66", "66", False),
    ("24 at 2 points per answer = 48 points.\nWith the bonus 66", "66", False),
    ("A: 3 apples\nB: 4 apples\nThat is 7", "7", False),
    # an answer that is explained
    ("**Answer:**\n\n12 apples are left. They can be shared in 2 ways", "12", False),
    ("### Answer:\n\n$1,200 in 3 months", "1200", False),
    ("Answer:\n\n**12**\n\nIt took 3 steps", "12", False),
    ("Answer:\n1. Take 3 of them.\n2. There are 9.", "9", False),
    ("Answer:\nOf 3 boxes, each holds 4, so 12", "12", False),
    ("Answer: 12 (3 dozen = 36 eggs)", "12", False),
    ("Answer: 12 (that is 3 * 4 = 12 - 0)", "12", False),
    ("Answer: (3 + 4) * 2 = 14", "14", False),
    ("Answer: 12 eggs. That is 24 / 2 = 12.0 or 1 dozen", "12", False),
    ("The answer is the sum of 3 and 4, which is 7", "7", False),
    ("The answer is the sum of 3 apples and 4 pears, which makes 7 fruits.", "7", False),
    ("The answer is 3 times 4, or 12.", "12", False),
    ("The answer is 7, which is 3 more than 4.", "7", False),
    ("The answer is 7, which is 3 plus 4.", "7", False),
    ("The answer is 12 and 3 are left.", "12", False),
    # LaTeX
    (r"\boxed{12}", "12", False),
    (r"$\boxed{12}$", "12", False),
    (r"The result is $\boxed{\frac{1}{2}}$.", "0.5", False),
    (r"\boxed{\dfrac{3}{4}}", "0.75", False),
    (r"\boxed{-\frac{3}{4}}", "-0.75", False),
    (r"\boxed{2\frac{1}{2}}", "2.5", False),
    (r"\boxed{\frac12}", "0.5", False),
    (r"\boxed{1{,}234}", "1234", False),
    (r"\boxed{1,\!234}", "1234", False),
    (r"\boxed{5\text{ apples}}", "5", False),
    (r"\boxed{\text{5 apples}}", "5", False),
    (r"\boxed{\$5.50}", "5.5", False),
    (r"\boxed{50\%}", "50", False),
    (r"\boxed{x = 7}", "7", False),
    (r"\boxed 7", "7", False),
    (r"\boxed{ 12\, }", "12", False),
    (r"Answer: \(\boxed{70}\)", "70", False),
    (r"Answer: $\frac{1}{2}$", "0.5", True),
    # in words around it
    ("The answer is 7.", "7", False),
    ("The answer is: 7", "7", False),
    ("So the final answer is $18.50.", "18.5", False),
    ("The answer to the question is 12 eggs.", "12", False),
    ("The final answer would be **1,000**.", "1000", False),
    ("The answer equals 3/4.", "0.75", False),
    # bare last numbers
    ("it is 5 then 6 and 7", "7", False),
    ("12 + 17 = 29", "29", False),
    ("10 - 3", "3", False),
    ("5-3", "3", False),
    ("She has 1,234 left.", "1234", False),
    ("He pays $5.25.", "5.25", False),
    ("1,2,3", "3", False),
    ("the 4th and the 5th", None, False),
    ("room B12", None, False),
    # none at all
    ("", None, False),
    ("   \n", None, False),
    ("I do not know.", None, False),
    ("Final answer: twelve", None, False),
    ("Answer: 5/0", None, False),
    # reasoning
    ("<think>Answer: 3</think>\nAnswer: 4", "4", True),
    ("<think>\n1 2 3\n</think>\n\nThe answer is 9.", "9", False),
    ("<think>so 3 and 4", "4", False),
    ("<think>Answer: 3</think>", "3", True),
    ("</think>Answer: 8", "8", True),
    ("<thinking>5</thinking> Answer: 6", "6", True),
]


# completion → how its answer was found, whether that counts by the strict reading if the completion is finished
FOUND: list[tuple[str, str, bool]] = [
    ("Answer: 5", "marker", True),
    ("#### 5", "marker", True),
    ("so the answer is 5.", "marker", True),
    (r"\boxed{5}", "boxed", True),
    (r"Answer: \boxed{5}", "boxed", True),
    ("2 + 3 = 5", "last_number", False),
    ("Answer: five, I mean 5\nAnswer: unknown", "marker", True),
    ("<think>2 + 3</think>Answer: 5", "marker", True),
    ("<think>Answer: 5</think>", "marker", True),
    ("so Answer: 5</think>\n", "marker", True),
    ("<think>Answer: 5", "marker", False),
    ("<think>1</think>Answer: 5 <think>wait", "marker", False),
    ("<thinking>Answer: 5", "marker", False),
    ("<think>2 + 3 = 5", "last_number", False),
]


@pytest.mark.parametrize(("completion", "extraction", "strict"), FOUND, ids=[repr(case[0])[:50] for case in FOUND])
def test_strict_takes_marked_answers_of_finished_completions_only(
    completion: str, extraction: str, strict: bool
) -> None:
    found = grade(completion, "5")
    assert (found.extraction, found.correct, found.lenient, found.answer) == (extraction, strict, True, "5")
    cut_off = grade(completion, "5", finished=False)
    assert (cut_off.extraction, cut_off.correct, cut_off.lenient) == (extraction, False, True)
    wrong = grade(completion, "6")
    assert (wrong.correct, wrong.lenient) == (False, False)


def test_without_any_answer_nothing_is_right() -> None:
    found = grade("I do not know.", "0")
    assert (found.extraction, found.answer, found.correct, found.lenient) == ("none", None, False, False)


CITIES = ["Paris", "Rome", "a lake", "Oslo, Norway"]
# completion → letter with the options known, letter without, how it was found, whether in the form asked for
LETTER_CASES: list[tuple[str, str | None, str | None, str, bool]] = [
    ("Answer: B", "B", "B", "marker", True),
    ("Answer: [B].", "B", "B", "marker", True),
    ("answer: b", "B", "B", "marker", False),
    ("Answer: (B)", "B", "B", "marker", False),
    ("**Answer:** B. Rome", "B", "B", "marker", False),
    ("Answer: **B**", "B", "B", "marker", False),
    ("Answer: B) Rome", "B", "B", "marker", False),
    ("Answer: B Rome", "B", "B", "marker", False),
    ("Answer: A Paris", "A", None, "marker", False),
    ("Answer: Option C", "C", "C", "marker", False),
    ("Answer: Rome", "B", None, "marker", False),
    ("Answer: a lake", "C", None, "marker", False),
    ("Answer: Oslo, Norway.", "D", None, "marker", False),
    ("The answer is B.", "B", "B", "marker", False),
    ("The correct answer is (D).", "D", "D", "marker", False),
    ("Answer:\nB", "B", "B", "marker", False),
    (r"\boxed{C}", "C", "C", "boxed", False),
    (r"The answer is $\boxed{\text{C}}$", "C", "C", "boxed", False),
    ("Answer: A\nNo, wait.\nAnswer: D", "D", "D", "marker", True),
    ("I think it is (B), not far away", "B", "B", "letter", False),
    ("It must be option C", "C", "C", "letter", False),
    ("Rome lies there.\nB", "B", "B", "letter", False),
    ("B. Rome", "B", "B", "letter", False),
    ("Answer: Berlin", None, None, "none", False),
    ("Answer: A dog", None, None, "none", False),
    ("Because I say so", None, None, "none", False),
    ("", None, None, "none", False),
    ("Answer: 2", None, None, "none", False),
]


@pytest.mark.parametrize(
    ("completion", "known", "unknown", "extraction", "compliant"),
    LETTER_CASES,
    ids=[repr(case[0])[:50] for case in LETTER_CASES],
)
def test_letters(completion: str, known: str | None, unknown: str | None, extraction: str, compliant: bool) -> None:
    found = grade(completion, "B", choices=CITIES)
    assert (found.answer, found.extraction, found.compliant) == (known, extraction, compliant)
    assert (found.lenient, found.correct) == (known == "B", known == "B" and extraction in ("marker", "boxed"))
    assert extract(completion, letters=True).value == unknown


def test_a_letter_beyond_the_options_is_none() -> None:
    assert grade("Answer: E", "B", choices=CITIES).answer is None
    assert not grade("Answer: E", "B", choices=CITIES).compliant
    assert grade("Answer: E", "B").answer == "E"


def test_a_gold_answer_that_cannot_be_graded_is_refused() -> None:
    with pytest.raises(ValueError, match="neither a number nor a letter"):
        grade("Answer: 5", "five")


@pytest.mark.skipif(not SHARED_GSM8K.exists(), reason="the GSM8K file is not beside the project")
@pytest.mark.parametrize("name", ["test.jsonl", "train.jsonl"])
def test_every_solution_of_gsm8k_is_right_however_it_is_marked(name: str) -> None:
    for line in (SHARED_GSM8K / name).read_text().splitlines():
        solution = json.loads(line)["answer"]
        work, _, gold = solution.partition("#### ")
        for ending in ("#### ", "A: ", "The answer is $"):
            assert grade(f"{work}{ending}{gold}", gold).correct, solution


@pytest.mark.parametrize(("completion", "answer", "compliant"), CASES, ids=[repr(case[0])[:50] for case in CASES])
def test_table(completion: str, answer: str | None, compliant: bool) -> None:
    number, text, _ = extract(completion)
    assert extract(completion).notation == answer
    assert (text is None) == (number is None)
    assert is_compliant(completion) is compliant


def test_the_comparison_is_exact() -> None:
    assert grade("Answer: 0.1", Fraction(1, 10)).correct
    assert grade("Answer: 1/3", Fraction(1, 3)).correct
    assert not grade("Answer: 0.3333333333333333", Fraction(1, 3)).correct
    assert grade("Answer: 18.00", Fraction(18)).correct
    assert not grade("no idea", Fraction(0)).correct


def test_a_leading_zero_of_a_decimal_is_no_other_number() -> None:
    assert [value for _, value in find_numbers("0.5 and 1.25.")] == [Fraction(1, 2), Fraction(5, 4)]


def test_reasoning_that_nothing_follows_is_read() -> None:
    assert visible("<think>5</think>  \n").strip() == "5"
    assert visible("<think>5</think>6") == "6"


def test_efficiency_is_the_unspent_share() -> None:
    assert efficiency(0, 256) == 1.0
    assert efficiency(64, 256) == 0.75
    assert efficiency(256, 256) == 0.0
    assert efficiency(300, 256) == 0.0


@given(st.fractions(max_denominator=10_000))
def test_canonical_reads_back(value: Fraction) -> None:
    assert parse_number(canonical(value)) == value


@given(st.integers(-(10**12), 10**12))
def test_integers_are_found_in_every_notation(value: int) -> None:
    for text in (
        f"Answer: {value}",
        f"Answer: {value:,}",
        f"Answer: [{value}].",
        f"\\boxed{{{value}}}",
        f"#### {value:,}",
    ):
        assert extract(text)[0] == value


@given(st.decimals(-(10**6), 10**6, places=3))
def test_decimals_are_exact(value: object) -> None:
    assert extract(f"so that the answer is {value}.")[0] == Fraction(str(value))


@given(
    st.text(alphabet="Answer:is #5\n.()=<>/think", max_size=60) | st.text(max_size=100),
    st.sampled_from(["5", "B"]),
    st.booleans(),
)
def test_strict_is_never_more_than_lenient(text: str, gold: str, finished: bool) -> None:
    found = grade(text, gold, finished=finished, choices=CITIES)
    assert found.lenient >= found.correct
    assert (found.extracted is None) == (found.extraction == "none") == (found.text is None)
    assert found.lenient == (found.answer == gold)
    assert not grade(f"<think>{text}", gold).correct or "</think" in text


@given(st.text(max_size=300))
def test_no_text_breaks_the_grader(text: str) -> None:
    number = extract(text).value
    assert number is None or isinstance(number, Fraction)
    assert is_compliant(text) in (True, False)


@pytest.mark.parametrize(
    "bomb",
    ["Answer: 1e999", "1e99999999", "9" * 5000, "1/" * 2000, "{" * 5000, "\\boxed{" * 800, "answer is 3 and " * 500],
)
def test_huge_numbers_and_deep_nesting_cost_nothing(bomb: str) -> None:
    extract(bomb)
    extract(bomb, letters=True)
    is_compliant(bomb)
