"""From a completion to an answer, and whether the answer is right."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from emoprobe.tasks.numbers import canonical, find_numbers, parse_number, plain

_THINK_END = re.compile(r"</think(?:ing)?>")
_THINK_START = re.compile(r"<think(?:ing)?>")
_EMPHASIS = re.compile(r"\*\*|__|`|\*(?=\S)|(?<=\S)\*")
_BRACKET = re.compile(r"^\s*[\[({<]\s*([^\[\](){}<>]*?)\s*[\])}>]")
_MARKERS = (
    # `Answer: 5`, `Final Answer - 5`, `ANSWER = 5`; not `the answer: is it …?`
    re.compile(r"\banswer\s*(?:\([^)\n]{0,30}\)\s*)?[:=\-]\s*(?=(?P<rest>[^\n]*))", re.IGNORECASE),
    re.compile(r"####\s*(?=(?P<rest>[^\n]*))"),
    # `The answer is 5`, `the final answer to the problem would be: 5`
    re.compile(
        r"\banswer\b[^\n.:=]{0,60}?\b(?:is|are|was|would be|will be|equals|comes to)\b\s*:?\s*(?=(?P<rest>[^\n]*))",
        re.IGNORECASE,
    ),
)
_BOXED = re.compile(r"\\boxed\s*(?=\{)|\\boxed\s+(?=\d)|\\fbox\s*(?=\{)")
_COMPLIANT = re.compile(r"^[ \t]*Answer:[ \t]*\[?[ \t]*([^\[\]\n]+?)[ \t]*\]?[ \t]*\.?[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Grade:
    """What a completion says and how well.

    `extracted` is the answer as an exact number (None: there is none), `text` how it stood there, `compliant`
    whether it was given in the form that the prompt asks for, `correct` whether it equals the gold answer.
    """

    extracted: Fraction | None
    text: str | None
    compliant: bool
    correct: bool

    @property
    def answer(self) -> str | None:
        """The extracted answer in its shortest exact notation."""
        return None if self.extracted is None else canonical(self.extracted)


def visible(completion: str) -> str:
    """The completion without its reasoning block, where something follows it.

    A block that never ends, or one that nothing follows, is all there is to read, so it is kept.
    """
    parts = _THINK_END.split(completion)
    if len(parts) > 1 and parts[-1].strip():
        return parts[-1]
    return _THINK_START.sub("", _THINK_END.sub("", completion))


def extract(completion: str) -> tuple[Fraction | None, str | None]:
    r"""The final answer of a completion, as an exact number and as it stood there.

    The last marked answer counts (`Answer:`, `####`, `\boxed{}`, "the answer is"); a marker with no number
    after it is passed over. Without any marker it is the last number of the text.
    """
    text = visible(completion)
    candidates: list[tuple[int, str]] = [
        (match.start("rest"), match["rest"]) for marker in _MARKERS for match in marker.finditer(text)
    ]
    candidates += [(match.end(), _braced(text, match.end())) for match in _BOXED.finditer(text)]
    for _, rest in sorted(candidates, key=lambda candidate: candidate[0], reverse=True):
        if (number := _answer_in(rest)) is not None:
            return number[1], number[0]
    numbers = find_numbers(plain(_EMPHASIS.sub("", text)))
    return (numbers[-1][1], numbers[-1][0]) if numbers else (None, None)


def is_compliant(completion: str) -> bool:
    """Whether the last non-empty line is `Answer: ` and one number, brackets and a full stop allowed."""
    lines = visible(completion).strip().splitlines()
    match = _COMPLIANT.fullmatch(lines[-1]) if lines else None
    return match is not None and parse_number(match[1]) is not None


def grade(completion: str, gold: Fraction) -> Grade:
    """Grade a completion against the gold answer, by exact rational comparison."""
    number, text = extract(completion)
    return Grade(number, text, is_compliant(completion), number is not None and number == gold)


def efficiency(completion_tokens: int, max_tokens: int) -> float:
    """The share of the token budget that was left unspent, in [0, 1]: 0 for a completion that was cut off."""
    return max(0.0, 1.0 - completion_tokens / max_tokens)


def _braced(text: str, start: int) -> str:
    """What stands between the brace at `start` and the one that closes it, or the digits there."""
    if start >= len(text) or text[start] != "{":
        return text[start : start + 40].split("\n")[0]
    depth = 0
    for end in range(start, min(len(text), start + 400)):
        depth += (text[end] == "{") - (text[end] == "}")
        if depth == 0:
            return text[start + 1 : end]
    return text[start + 1 : start + 400]


def _answer_in(rest: str) -> tuple[str, Fraction] | None:
    """The number of an answer's own text: what stands in brackets, the right side of an equation, or the first."""
    rest = _EMPHASIS.sub("", rest)
    if boxed := _BOXED.search(rest):
        rest = _braced(rest, boxed.end())
    if bracket := _BRACKET.match(rest):
        rest = bracket[1]
    rest = plain(rest)
    if "=" in rest and find_numbers(rest.rpartition("=")[2]):
        rest = rest.rpartition("=")[2]
    numbers = find_numbers(rest)
    return numbers[0] if numbers else None
