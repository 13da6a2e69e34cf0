"""Gold answers as data sets write them: an exact number, or the letter of an option."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Any

from emoprobe.graders.numbers import parse_number

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_FINAL = re.compile(r"####\s*(.+)")


def gold_number(answer: Any) -> Fraction | None:
    """The exact number in an answer column: a number, a text that is one, or a solution that ends in `#### n`."""
    if isinstance(answer, bool) or answer is None:
        return None
    if isinstance(answer, int):
        return Fraction(answer)
    if isinstance(answer, float):
        # The shortest decimal that reads back as this float is what the author wrote.
        return Fraction(repr(answer)) if math.isfinite(answer) else None
    text = str(answer)
    if finals := _FINAL.findall(text):
        return parse_number(finals[-1].strip().rstrip("."))
    return parse_number(text.strip().rstrip("."))


def gold_letter(answer: Any, choices: list[str]) -> str | None:
    """The letter of the right option, from a letter, an index from 0, or the option's text.

    None where the answer is none of them, or may mean two different options.
    """
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        return None
    text = str(answer).strip()
    meant = {index for index, choice in enumerate(choices) if choice.strip() == text}
    letter = text.rstrip(".)").removeprefix("(")
    if isinstance(answer, str) and len(letter) == 1 and letter.upper() in LETTERS[: len(choices)]:
        meant.add(LETTERS.index(letter.upper()))
    if text.isascii() and text.isdigit() and int(text) < len(choices):
        meant.add(int(text))
    return LETTERS[meant.pop()] if len(meant) == 1 else None


def is_letter(answer: str) -> bool:
    """Whether a gold answer in its canonical notation is a letter."""
    return len(answer) == 1 and answer in LETTERS


def with_options(question: str, choices: list[str] | None) -> str:
    """A question as it is asked: followed by its options, `A. …` a line, where it has some."""
    if not choices:
        return question
    lines = [f"{letter}. {choice.strip()}" for letter, choice in zip(LETTERS, choices, strict=False)]
    return "\n".join([question, *lines])
