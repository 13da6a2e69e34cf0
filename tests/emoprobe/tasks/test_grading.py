"""What the grader makes of awkward completions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoprobe.tasks.grading import efficiency, extract, grade, is_compliant, visible
from emoprobe.tasks.numbers import canonical, find_numbers, parse_number

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


@pytest.mark.parametrize(("completion", "answer", "compliant"), CASES, ids=[repr(case[0])[:50] for case in CASES])
def test_table(completion: str, answer: str | None, compliant: bool) -> None:
    number, text = extract(completion)
    assert (None if number is None else canonical(number)) == answer
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


@given(st.text(max_size=300))
def test_no_text_breaks_the_grader(text: str) -> None:
    number, _ = extract(text)
    assert number is None or isinstance(number, Fraction)
    assert is_compliant(text) in (True, False)


@pytest.mark.parametrize("bomb", ["Answer: 1e999", "1e99999999", "9" * 5000, "1/" * 2000, "{" * 5000, "\\boxed{" * 800])
def test_huge_numbers_and_deep_nesting_cost_nothing(bomb: str) -> None:
    extract(bomb)
    is_compliant(bomb)
