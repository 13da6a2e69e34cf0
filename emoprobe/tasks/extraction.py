r"""The final answer of a completion: the last one that is marked as such, else the last number or letter there is.

Marks are `Answer:`, `####`, `\boxed{}` and "the answer is".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

from emoprobe.tasks.gold import LETTERS
from emoprobe.tasks.numbers import PATTERN, canonical, find_numbers, plain

# How an answer was found: behind a mark, in a box, as the last number or letter of the text, or not at all.
Extraction = Literal["marker", "boxed", "last_number", "letter", "none"]

_EMPHASIS = re.compile(r"\*\*|__|`|\*(?=\S)|(?<=\S)\*")
_BRACKET = re.compile(r"^\s*[\[({<]\s*([^\[\](){}<>]*?)\s*[\])}>]")
_ASIDE = re.compile(r"\([^()]*\)")
_MARKERS = (
    # `Answer: 5`, `Final Answer - 5`, `ANSWER = 5`; not `2 points/answer = 48`
    re.compile(r"(?<!/)(?<!per )\banswer\s*(?:\([^)\n]{0,30}\)\s*)?[:=\-][ \t]*(?=(?P<rest>[^\n]*))", re.IGNORECASE),
    re.compile(r"####[ \t]*(?=(?P<rest>[^\n]*))"),
    # `A: 5` as the last line, the answer to a `Q:`
    re.compile(r"^[ \t]*A:[ \t]*(?=(?P<rest>[^\n]*)\s*\Z)", re.MULTILINE),
    # `The answer is 5`, `the final answer to the problem would be: 5`
    re.compile(
        r"\banswer\b[^\n.:=]{0,60}?\b(?:is|are|was|would be|will be|equals|comes to)\b[ \t]*:?[ \t]*"
        r"(?=(?P<rest>[^\n]*))",
        re.IGNORECASE,
    ),
)
_BOXED = re.compile(r"\\boxed\s*(?=\{)|\\boxed\s+(?=\d)|\\fbox\s*(?=\{)")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)")
# What may stand before the number of a line that is an answer by itself.
_LEAD = re.compile(
    r"[^A-Za-z0-9]*(?:(?:about|approximately|roughly|around|exactly|only|[A-Za-z]\s*=)\s*)?[^A-Za-z0-9]*"
)
# `3 and 4, which is 7`: numbers that a calculation begins with, and what introduces its result.
_OPERANDS = re.compile(
    rf"{PATTERN}(?:\s+[^\W\d]+){{0,2}}\s*"
    rf"(?:\band\b|\bplus\b|\bminus\b|\btimes\b|\bdivided by\b|\bmultiplied by\b|[-+*/×÷·])\s*{PATTERN}"
)
_RESULT = re.compile(
    r"\b(?:(?:which|that)\s+(?:is|equals|makes|gives|comes to|adds up to|totals)"
    r"|is equal to|equals|is|makes|gives|or)\b"
)
_LETTER = re.compile(
    r"""[\s\[({<"'$]*(?:(?:option|choice|letter)\s*)?[\[({<"']*(?P<letter>[A-Za-z])(?=$|[\s\])}>.,:;"'!?$])""",
    re.IGNORECASE,
)
_ALONE = re.compile(r"""[\s\[\](){}<>.,:;"'!?$]*""")
_LOOSE_LETTER = re.compile(r"\((?P<bracketed>[A-Z])\)|\b(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s+(?P<named>[A-Z])\b")


class Extracted(NamedTuple):
    """An answer: its value, a number or a letter (None: there is none), how it stood there, and how it was found."""

    value: Fraction | str | None
    text: str | None
    extraction: Extraction

    @property
    def notation(self) -> str | None:
        """The value as files and tables have it: a number in its shortest exact notation, or the letter."""
        return canonical(self.value) if isinstance(self.value, Fraction) else self.value


@dataclass(frozen=True)
class _Candidate:
    """The text behind a mark; `start` is its place. What stands on a later line counts only if it is an answer."""

    start: int
    rest: str
    extraction: Extraction
    later_line: bool = False


def extract_number(text: str) -> Extracted:
    """The final answer of a text as an exact number; a mark with no number behind it is passed over."""
    for candidate in _candidates(text):
        if (number := _answer_in(candidate)) is not None:
            return Extracted(number[1], number[0], candidate.extraction)
    numbers = find_numbers(plain(_EMPHASIS.sub("", text)))
    return Extracted(numbers[-1][1], numbers[-1][0], "last_number") if numbers else Extracted(None, None, "none")


def extract_letter(text: str, choices: list[str] | None = None) -> Extracted:
    """The final answer of a text as the letter of an option; behind a mark, the option's text counts as well.

    Without `choices`, every letter may be one.
    """
    letters = LETTERS[: len(choices)] if choices else LETTERS
    for candidate in _candidates(text):
        rest = plain(_EMPHASIS.sub("", candidate.rest)).strip()
        if (letter := _letter_in(rest, letters, choices or [])) is not None:
            return Extracted(letter, rest, candidate.extraction)
    clean = _EMPHASIS.sub("", text)
    found = [match["bracketed"] or match["named"] for match in _LOOSE_LETTER.finditer(clean)]
    lines = clean.strip().splitlines()
    if lines and (match := re.match(r"\s*([A-Z])(?:[.):]|\s*$)", lines[-1])):
        found.append(match[1])
    found = [letter for letter in found if letter in letters]
    return Extracted(found[-1], found[-1], "letter") if found else Extracted(None, None, "none")


def _candidates(text: str) -> Iterator[_Candidate]:
    """What stands behind every mark of a text, the last mark first."""
    found = []
    for marker in _MARKERS:
        for match in marker.finditer(text):
            rest, start = match["rest"], match.start("rest")
            if _EMPHASIS.sub("", rest).strip():
                found.append(_Candidate(start, rest, "marker"))
            else:
                following = text[start + len(rest) :].lstrip().partition("\n")[0]
                found.append(_Candidate(start, following, "marker", later_line=True))
    found += [_Candidate(match.end(), _braced(text, match.end()), "boxed") for match in _BOXED.finditer(text)]
    yield from sorted(found, key=lambda candidate: candidate.start, reverse=True)


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


def _answer_in(candidate: _Candidate) -> tuple[str, Fraction] | None:
    """The number of an answer's own text: in brackets, the result of a calculation, or the first."""
    rest = _EMPHASIS.sub("", candidate.rest)
    if boxed := _BOXED.search(rest):
        rest = _braced(rest, boxed.end())
    rest = plain(rest)
    if candidate.later_line and not _is_answer(rest):
        return None
    bracket = _BRACKET.match(rest)
    if bracket and "=" not in _ASIDE.sub("", rest[bracket.end() :]):
        rest = bracket[1]
    # What is said of an answer in brackets, or in another sentence, is not the answer.
    rest = _if_numbers(_ASIDE.sub(" ", rest), rest)
    rest = _if_numbers(_SENTENCE_END.split(rest)[0], rest)
    if "=" in rest and find_numbers(rest.rpartition("=")[2]):
        rest = rest.rpartition("=")[2]
    numbers = find_numbers(rest)
    return _result(rest, numbers) if numbers else None


def _if_numbers(part: str, whole: str) -> str:
    return part if find_numbers(part) else whole


def _is_answer(line: str) -> bool:
    """Whether a line begins with its number, and is not the first point of a list."""
    numbers = find_numbers(line)
    return (
        bool(numbers)
        and _LEAD.fullmatch(line[: line.index(numbers[0][0])]) is not None
        and not re.match(r"\s*1[.)]\s+[^\W\d]", line)
    )


def _result(rest: str, numbers: list[tuple[str, Fraction]]) -> tuple[str, Fraction]:
    """The first of a text's numbers, or the result where it begins a calculation in words."""
    operands = _OPERANDS.match(rest, rest.index(numbers[0][0]))
    if operands:
        results = [find_numbers(rest[match.end() :]) for match in _RESULT.finditer(rest, operands.end())]
        for found in reversed(results):
            if found:
                return found[0]
    return numbers[0]


def _letter_in(rest: str, letters: str, choices: list[str]) -> str | None:
    """The letter that an answer's own text is, or begins with; else that of the option that it spells out."""
    if boxed := _BOXED.search(rest):
        rest = _braced(rest, boxed.end())
    match = _LETTER.match(rest)
    if match is not None:
        letter, after = match["letter"], rest[match.end() :]
        alone = _ALONE.fullmatch(after) is not None
        option = choices[letters.index(letter)] if letter in letters and choices else None
        named = option is not None and _spelled(after) == _spelled(option)
        # `A dog` and `I think` begin with a word, `B dog` with a letter.
        word = letter in "AI" and re.match(r"\s+\w", after) is not None
        if alone and letter.upper() in letters:
            return letter.upper()
        if letter in letters and (named or not word):
            return letter
    spelled = [letter for letter, choice in zip(letters, choices, strict=False) if _spelled(choice) == _spelled(rest)]
    return spelled[0] if len(spelled) == 1 else None


def _spelled(text: str) -> str:
    return text.strip(" \t.,:;!?\"'()[]{}$").casefold()
