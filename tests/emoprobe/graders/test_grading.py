"""What the grader makes of awkward completions."""

import json
import time
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emoprobe.graders.answers import canonical, find_numbers, parse_number
from emoprobe.graders.grading import efficiency, extract, grade, is_compliant, visible

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
    ("Answer: 5 hours 30 minutes", None, False),
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
    ("B. Rome", "B", "B", "marker", False),
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


# completion → the number that a reader takes for its answer (None: there is no one number), whether it counts strictly
READINGS: list[tuple[str, str | None, bool]] = [
    ("Answer: 3.14\n\nNote: The answer is rounded to 2 decimal places.", "3.14", True),
    ("*Answer*: 42", "42", True),
    ("__Answer__: 42", "42", True),
    ("***Answer***: 42", "42", True),
    ("<b>Answer</b>: 42", "42", True),
    ("`Answer`: 42", "42", True),
    ("**Final Answer**\n\n42", "42", True),
    ("### Answer\n42", "42", True),
    ("## Final Answer:\n\n\\[ 42 \\]", "42", True),
    ("**Answer:**42", "42", True),
    ("Answer: *42*", "42", True),
    ("Answer: ==42==", "42", True),
    ("Answer: _42_", "42", True),
    ("Answer: <mark>42</mark>", "42", True),
    ("<answer>42</answer>", "42", True),
    ("<answer>\n42\n</answer>", "42", True),
    ("Answer： 42", "42", True),
    ("Answer： ４２", "42", True),
    ("The answer is:\n\\[\n42\n\\]", "42", True),
    ("The answer is:\n```\n42\n```", "42", True),
    ("The answer is:\n\n| 42 |", "42", True),
    ("The answer is:\n> 42", "42", True),
    ("The answer is:\n\n- 42", "42", True),
    ("The answer is\n\\begin{align*}\n42\n\\end{align*}", "42", True),
    ("The answer is:\n\\[\nx = 42\n\\]", "42", True),
    ("The answer is:\n$$\n\\text{Total} = 42\n$$", "42", True),
    ("Answer: \u2013 5", "-5", True),
    ("Answer: —5", "-5", True),
    ("Answer: \ufe635", "-5", True),
    ("Answer: \uff0d5", "-5", True),
    ("Answer: \u20125", "-5", True),
    ("Answer: minus 5", "-5", True),
    ("The answer is negative 5.", "-5", True),
    ("The answer is - 5.", "-5", True),
    ("Answer: \\(-5\\)", "-5", True),
    ("Answer: -\\$5", "-5", True),
    ("Answer: x = - 5", "-5", True),
    ("Answer: 7 minus 5", None, False),
    ("Final Answer - 5", "5", True),
    ("Final Answer — 5", "5", True),
    ("Answer -5", "-5", True),
    ("\\boxed{20\\;000}", "20000", True),
    ("\\boxed{20~000}", "20000", True),
    ("Answer: 20\u00a0000", "20000", True),
    ("Answer: 20\u2009000", "20000", True),
    ("Answer: 1\u202f234\u202f567", "1234567", True),
    ("Answer: 20\\ 000", "20000", True),
    ("Answer: 1,00,000", "100000", True),
    ("Answer: 12,34,567.5", "1234567.5", True),
    ("Answer: 1'000'000", "1000000", True),
    ("Answer: 1 234.5", "1234.5", True),
    ("Answer: 1.234,56", "1234.56", True),
    ("Answer: 3,5", None, False),
    ("Answer: 42 = 6 \u00d7 7", "42", True),
    ("Answer: 6 \u00d7 7 = 42", "42", True),
    ("Answer: 6*7 = 42", "42", True),
    ("Answer: 42 (= 6 * 7)", "42", True),
    ("Answer: $6 \\times 7 = 42$", "42", True),
    ("Answer: 42 because 6 \u00d7 7 = 42", "42", True),
    ("The answer is 6 \u00d7 7, which is 42.", "42", True),
    ("The answer is 6 \u00d7 7.", None, False),
    ("Answer: 1.5 \u00d7 10^6", "1500000", True),
    ("Answer: 1.5·10⁶", "1500000", True),
    ("Answer: $1.5 \\times 10^{6}$", "1500000", True),
    ("Answer: 1.5e6", "1500000", True),
    ("Answer: 1.5E+6", "1500000", True),
    ("Answer: 10^6", "1000000", True),
    ("Answer: 1.5x10^6", "1500000", True),
    ("Answer: 1.5 * 10**6", "1500000", True),
    ("Answer: 2\u00d710\u207b³", "0.002", True),
    ("Answer: 1.5 million", "1500000", True),
    ("Answer: 2 \\cdot 10^{-3}", "0.002", True),
    ("\\boxed{3\\pi}", None, False),
    ("\\boxed{2\\sqrt{3}}", None, False),
    ("\\boxed{5x}", None, False),
    ("\\boxed{\\sqrt{3}}", None, False),
    ("Answer: 3π", None, False),
    ("Answer: 3 π cm", None, False),
    ("Answer: x + 5", None, False),
    ("\\boxed{\\frac{3\\pi}{4}}", None, False),
    ("\\boxed{\\frac{\\sqrt{3}}{2}}", None, False),
    ("\\boxed{5!}", "5", True),
    ("\\boxed{2^5}", None, False),
    ("\\boxed{3i}", None, False),
    ("\\boxed{\\pm 5}", None, False),
    ("Answer: ±5", None, False),
    ("\\boxed{x^2+1}", None, False),
    ("\\boxed{2(x+1)}", None, False),
    ("\\boxed{x}", None, False),
    ("Answer: √3", None, False),
    ("Answer: 3√2", None, False),
    ("\\boxed{\\log 5}", None, False),
    ("Answer: x > 5", None, False),
    ("\\boxed{x \\geq 5}", None, False),
    ("Answer: 5xy", None, False),
    ("\\boxed{\\pi/4}", None, False),
    ("\\boxed{\\frac{x}{2}}", None, False),
    ("2πr, so it is 6π", None, False),
    ("The answer is not 5 but 6.", "6", True),
    ("The answer is not 5, but 6.", "6", True),
    ("The answer is 6, not 5.", "6", True),
    ("The answer isn't 5, it's 6.", "6", True),
    ("The answer is not 5.", None, False),
    ("The answer is 6 rather than 5.", "6", True),
    ("Answer: 5. No wait, 7", "7", True),
    ("Answer: 5\nWait, no, it's 7.", "7", True),
    ("The answer is 5... actually 7.", "7", True),
    ("Answer: 5. Sorry, it should be 7.", "7", True),
    ("Answer: 5. Correction: 7", "7", True),
    ("Answer: 5 (wait 3 minutes)", "5", True),
    ("Answer: 5\nNo 3 people can share.", "5", True),
    ("Answer: ~~5~~ 7", "7", True),
    ("Answer: 5, I mean 7", "7", True),
    ("Answer: 5\n\nI hope this helps! If you have 2 more questions, ask.", "5", True),
    ("Answer: 5\n\nNote: 3 of these are red.", "5", True),
    ("Answer: 3.14 ≈ 22/7", "3.14", True),
    ("Answer: ≈ 3.14", "3.14", True),
    ("Answer: ~5", "5", True),
    ("Answer: approximately 5.5 km", "5.5", True),
    ("Answer: x ≈ 3.14", "3.14", True),
    ("Answer: 45%", "45", True),
    ("Answer: 45 percent", "45", True),
    ("Answer: \\(45\\%\\)", "45", True),
    ("Answer: 0.5 or 50%", "0.5", True),
    ("Answer: 1/2 = 0.5", "0.5", True),
    ("Answer: 3/4", "0.75", True),
    ("Answer: 3 1/2 hours", "3.5", True),
    ("\\boxed{\\frac{3}{4}}", "0.75", True),
    ("Answer: 5-6", None, False),
    ("Answer: 5\u20136", None, False),
    ("Answer: between 5 and 6", None, False),
    ("Answer: 5 or 6", None, False),
    ("Answer: 5 to 6", None, False),
    ("Answer: 5, 6", None, False),
    ("Answer: 5 and 6", None, False),
    ("Answer: (3, 4)", None, False),
    ("Answer: x = 3 or x = 4", None, False),
    ("Answer: x = 3, y = 4", None, False),
    ("Answer: 5/6/2020", None, False),
    ("Answer: 2020-05-06", None, False),
    ("Answer: 10:45 AM", None, False),
    ("Answer: 3:4", None, False),
    ("\\boxed{3} or \\boxed{5}", None, False),
    ("Answer: 5 or 6 apples", None, False),
    ("Answer: from 5 to 6 hours", None, False),
    ("Answer: 90°", "90", True),
    ("Answer: 4! = 24", "24", True),
    ("Answer: more than 5", None, False),
    ("answer → 42", "42", True),
    ('{"answer": 42}', "42", True),
    ("Answer: 10/3 ≈ 3.33", "10/3", True),
    ("Answer: at least 5", "5", True),
    ("The answer is 4. Let me double check: 2 + 2 = 4. Yes.", "4", True),
    ("I got 8. Answer: 9? No, 8.", "8", True),
    ("Answer: 3 eggs per day × 7 days = 21 eggs", "21", True),
    ("Answer: 5 remainder 2", "5", True),
    ("\\boxed{90^\\circ}", "90", True),
    ("Answer: 12 m^2", "12", True),
    ("Answer: 12 m²", "12", True),
    ("Answer: 5 km/h", "5", True),
    ("Answer: 5 m/s", "5", True),
    ("Answer: 5km", "5", True),
    ("Answer: $5 per hour", "5", True),
    ("\\boxed{5 \\text{ cm}^2}", "5", True),
    ("\\boxed{12\\mathrm{~cm}}", "12", True),
    ("Answer: 5 €", "5", True),
    ("Answer: US$5", "5", True),
    ("Answer: Rs. 500", "500", True),
    ("Answer: 500 J", "500", True),
    ("7", "7", True),
    ("7.", "7", True),
    ("$7$", "7", True),
    ("\\(7\\)", "7", True),
    ("\\[\n7\n\\]", "7", True),
    ("**7**", "7", True),
    ("$1,150", "1150", True),
    ("7 apples", "7", True),
    ("x = 7", "7", True),
    ("```\n7\n```", "7", True),
    ("-7", "-7", True),
    ("about 7", "7", True),
    ("[7]", "7", True),
    ("2 + 5 = 7", "7", False),
    ("He has 7 apples.", "7", False),
    ("3/4", "0.75", True),
    ("7\n", "7", True),
    ("It is 7.", "7", True),
    ("42 is the final answer.", "42", True),
    ("So 42 is the answer.", "42", True),
    ("The final answer to this is therefore 42.", "42", True),
    ("The answer must be 42.", "42", True),
    ("The answer comes out to 42.", "42", True),
    ("Our answer: 42", "42", True),
    ("ANSWER: 42", "42", True),
    ("The final result is 42.", "42", True),
    ("#### Step 3: add\nIt is 7 in all", "7", False),
    ("#### 3. Add them\nSo 7", "7", False),
    ("#### 7", "7", True),
    ("The answer is the total of 12 apples.", "12", True),
    ("Answer: Each of the 3 boys has 12 apples.", "12", True),
    ("Answer: Tom has 12 apples after giving 3 away.", "12", True),
    ("Answer: There are 12 apples left of the 15.", "12", True),
    ("The answer is 12 out of 20.", "12", True),
    ("The answer is correct to 3 significant figures.", None, False),
    ("Answer: 2.5\nThe answer is given in 2 parts.", "2.5", True),
    ("The answer is 8.\n\nQ: What is 2 + 2?\nA: The answer is 4.", "8", True),
    ("Answer: 10⁰", "1", True),
    ("Answer: ½", "0.5", True),
    ("Answer: 2½", "2.5", True),
    ("Answer: 5.", "5", True),
    ("Answer: .75", "0.75", True),
    ("Answer: 1/3 of the cake", "1/3", True),
    ("Answer: 5 hours and 30 minutes", None, False),
    ("Answer: $5 and 50 cents", None, False),
    ("Answer: 6 feet 2 inches", None, False),
    ("\\\\boxed{7}", "7", True),
    ("$\\boxed{7}$ apples", "7", True),
    ("\\boxed{7", "7", True),
    ("\\boxed{1,234}", "1234", True),
    ("\\boxed{\\$1{,}234.50}", "1234.5", True),
    ("Answer: \\frac{20}{4} = 5", "5", True),
    ("Answer: 7 (seven)", "7", True),
    ("Answer: seven (7)", "7", True),
    ("Answer: 42\u2028", "42", True),
    ("Answer:\u00a042", "42", True),
    ("Answer:\r\n42", "42", True),
]


@pytest.mark.parametrize(("completion", "answer", "strict"), READINGS, ids=[repr(case[0])[:60] for case in READINGS])
def test_numbers_are_read_as_a_reader_would(completion: str, answer: str | None, strict: bool) -> None:
    found = extract(completion)
    if answer is None:
        # Nothing counts strictly; the last number may still be taken leniently.
        assert found.extraction in ("none", "last_number")
    else:
        assert (found.notation, found.extraction in ("marker", "boxed")) == (answer, strict)
        assert grade(completion, answer).correct is strict


CAPITALS = ["Paris", "London", "Rome", "Berlin"]
# completion → the letter that a reader takes for its answer, whether it counts strictly
LETTER_READINGS: list[tuple[str, str | None, bool]] = [
    ("The answer is A because it lies on the Seine.", "A", True),
    ("A", "A", True),
    ("(A)", "A", True),
    ("B", "B", True),
    ("(B)", "B", True),
    ("B.", "B", True),
    ("**B**", "B", True),
    ("b", "B", True),
    ("b)", "B", True),
    ("Option B", "B", True),
    ("[B]", "B", True),
    ("$B$", "B", True),
    ("\\(B\\)", "B", True),
    ("Ｂ", "B", True),
    ("（B）", "B", True),
    ("Ⓑ", "B", True),
    ("𝐁", "B", True),
    ("\\text{B}", "B", True),
    ("\\boxed{\\text{(B)}}", "B", True),
    ("\\boxed{\\mathbf{B}}", "B", True),
    ("Answer: A and B", None, False),
    ("Answer: B and C", None, False),
    ("Answer: A or B", None, False),
    ("Answer: A, B", None, False),
    ("Answer: A/B", None, False),
    ("Answer: B & C", None, False),
    ("Answer: both A and C", None, False),
    ("Answer: A, B, and C", None, False),
    ("Answer: A is correct", "A", True),
    ("Answer: The correct option is A", "A", True),
    ("The correct choice is B.", "B", True),
    ("The correct option is (C).", "C", True),
    ("The best answer is A.", "A", True),
    ("Option C is correct.", "C", True),
    ("C is the correct answer.", "C", True),
    ("(A) is correct.", "A", True),
    ("A is the correct answer.", "A", True),
    ("The answer is option A, Paris.", "A", True),
    ("The answer is not A but B.", "B", True),
    ("The answer is B, not A.", "B", True),
    ("Answer: A. No wait, B.", "B", True),
    ("Answer: A\nWait, it's C.", "C", True),
    ("Answer: A or maybe B", None, False),
    ("A is correct. Rome is in Italy.", "A", True),
    ("If A is correct, so is Rome.", "C", False),
    ("D. Berlin, as was said.", "D", True),
    ("Answer: Paris or Rome", None, False),
    ("Answer: not Paris", None, False),
    ("Answer: None of the above", None, False),
    ('{"answer": "B"}', "B", True),
    ("$\\boxed{\\textbf{(A) } Paris}$", "A", True),
    ("Answer: Paris", "A", True),
    ("Answer: The capital of France is Paris.", "A", True),
    ("The answer is Paris, of course.", "A", True),
    ("Paris", "A", True),
    ("Paris.", "A", True),
    ("A. Paris", "A", True),
    ("A) Paris", "A", True),
    ("A: Paris", "A", True),
    ("The capital is Rome.", "C", False),
    ("Answer: a dog", None, False),
    ("Answer: A dog", None, False),
    ("Answer: I do not know", None, False),
    ("The answer is a city in France", None, False),
    ("Answer: A, because it lies on the Seine", "A", True),
    ("Answer: A - Paris", "A", True),
    ("Answer: A — Paris", "A", True),
    ("Answer: “A”", "A", True),
    ("Answer: 'A'", "A", True),
    ("Answer: A\nB would be wrong.", "A", True),
    ("Answer: (A) Paris, not (B) London", "A", True),
    ("The answer is: A) Paris", "A", True),
    ("Answer - A", "A", True),
    ("**Answer**\n\nA", "A", True),
    ("The correct answer is A. Paris is in France.", "A", True),
    ("The answer is likely A.", "A", True),
    ("I choose B.", "B", False),
    ("Answer: A as the others lie elsewhere", "A", True),
    ("Answer: A since Paris is in France", "A", True),
    ("The answer is A (Paris)", "A", True),
    ("The answer is A, and B is wrong.", "A", True),
]


@pytest.mark.parametrize(
    ("completion", "answer", "strict"), LETTER_READINGS, ids=[repr(case[0])[:60] for case in LETTER_READINGS]
)
def test_letters_are_read_as_a_reader_would(completion: str, answer: str | None, strict: bool) -> None:
    found = extract(completion, letters=True, choices=CAPITALS)
    assert (found.value, found.extraction in ("marker", "boxed")) == (answer, strict)


@pytest.mark.parametrize(
    "form", ["Answer: {}", "Answer: {} is correct", "The answer is {} because of it.", "{}", "({})"]
)
def test_every_letter_is_read_alike(form: str) -> None:
    for letter in "ABCD":
        assert grade(form.format(letter), letter, choices=CAPITALS).correct


def test_a_marked_answer_that_is_not_one_value_is_none() -> None:
    for completion in ("So 5.\nAnswer: 5 or 6", "It may be 3.\n\\boxed{3\\pi}", "Answer: 5\nAnswer: 5-6"):
        assert extract(completion) == (None, None, "none")
    assert extract("Option A.\nAnswer: A and B", letters=True) == (None, None, "none")


LOOPS = [
    "The answer is ", "Answer: ", "Answer: 5 or 6 ", "\\boxed{", "\\boxed{5} or ", "#### so ", "#### 3. a ", "wait, no, ",
    "the answer is A dog ", "C is the answer ", "1, 2, ", "=5", "1,234,", "10^", "not 5 but ", "\\frac{", "*a", "(", "-",
    "Answer:\n", "| ", "~~", "a_", "<b", "Final correct ", "\nQ: ",
]  # fmt: skip


@pytest.mark.parametrize("phrase", LOOPS)
def test_grading_takes_linear_time(phrase: str) -> None:
    def seconds(characters: int) -> float:
        text = phrase * (characters // len(phrase))
        times = []
        for _ in range(2):
            start = time.process_time()
            extract(text)
            extract(text, letters=True, choices=CAPITALS)
            times.append(time.process_time() - start)
        return min(times)

    # Eight times the text takes eight times as long, or 64 times where the time grows with the square.
    assert seconds(8_000) < 24 * max(seconds(1_000), 0.001)


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
    ("text", "value"),
    [
        ("1.5e6", "1500000"),
        ("1.5 \u00d7 10^6", "1500000"),
        ("1.5\u00b710\u2076", "1500000"),
        ("1.5 \\times 10^{-3}", "0.0015"),
        ("10**6", "1000000"),
        ("2.5 million", "2500000"),
        ("1,00,000", "100000"),
        ("1'000'000", "1000000"),
        ("1_000_000", "1000000"),
        ("1.234.567", "1234567"),
        ("1.234,56", "1234.56"),
        ("10 000 000", "10000000"),
        ("3 and 1/2", "3.5"),
        ("-1/2", "-0.5"),
        ("\uff15\uff10", "50"),
        ("3,5", None),
        ("0,123", None),
        ("1,2,3", None),
        ("1,2345", None),
        ("10,5%", None),
        ("5-6", None),
        ("5:30", None),
        ("3/4/2020", None),
        ("3\\pi", None),
        ("negative 5", None),
        ("1e201", None),
    ],
)
def test_numbers_in_every_notation(text: str, value: str | None) -> None:
    number = parse_number(text)
    assert (None if number is None else canonical(number)) == value


@pytest.mark.parametrize(
    "bomb",
    ["Answer: 1e999", "1e99999999", "9" * 5000, "1/" * 2000, "{" * 5000, "\\boxed{" * 800, "answer is 3 and " * 500],
)
def test_huge_numbers_and_deep_nesting_cost_nothing(bomb: str) -> None:
    extract(bomb)
    extract(bomb, letters=True)
    is_compliant(bomb)
