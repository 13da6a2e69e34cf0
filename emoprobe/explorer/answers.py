"""The place of an extracted answer in its completion.

The grader reads a completion in a plain notation of its own, which has other places than the text. So the place is
asked for: it is the last number, or letter, whose change changes the answer that the grader extracts.
"""

from __future__ import annotations

import re
from functools import lru_cache

from emoprobe.graders import grading
from emoprobe.graders.answers import LETTERS, is_letter

MAX_LENGTH = 20_000
MAX_TRIED = 40
_DIGITS = re.compile(r"\d+")
_LETTER = re.compile(r"(?<![^\W_])[A-Za-z](?![^\W_])")
# What may be between the digits of one number: 1,234.5, 3/4, \frac{1}{2}.
_WITHIN = re.compile(r"[.,'’_ ]?|\s?/\s?|\}\s?\{")
_SIGN = re.compile(r"(?:(?<![\w)\]}])[-+−]\s?)?[$€£¥₹]?$")


@lru_cache(maxsize=4096)  # short completions repeat
def answer_place(completion: str, extracted: str, choices: tuple[str, ...] = ()) -> tuple[int, int] | None:
    """Return the half-open place of an extracted answer, in characters; None where it cannot be told.

    Args:
        completion: what the grader reads.
        extracted: the answer that it extracted, in canonical notation.
        choices: the options of a multiple-choice question, where they are known.
    """
    if len(completion) > MAX_LENGTH:
        return None
    letters = is_letter(extracted)
    if not letters:
        return _number_place(completion, extracted)
    for match in _last(_LETTER, completion):
        if match[0].upper() == extracted:
            other = next(letter for letter in LETTERS[: len(choices) or None] if letter != extracted)
            if _read(completion, match, other if match[0].isupper() else other.lower(), choices) != extracted:
                return match.span()
    named = [
        match.span()
        for option in choices[LETTERS.index(extracted) :][:1]
        for match in re.finditer(re.escape(option), completion, re.IGNORECASE)
    ]
    return named[-1] if named else None


def _number_place(completion: str, before: str) -> tuple[int, int] | None:
    matches = _last(_DIGITS, completion)
    for index, match in enumerate(matches):
        if not _decides(completion, match, before):
            continue
        start, end = match.span()
        for earlier in matches[index + 1 :]:
            if not (_WITHIN.fullmatch(completion, earlier.end(), start) and _decides(completion, earlier, before)):
                break
            start = earlier.start()
        sign = _SIGN.search(completion[max(0, start - 3) : start])
        return start - (len(sign[0]) if sign else 0), end
    return None


def _decides(completion: str, match: re.Match[str], before: str) -> bool:
    """Return whether other digits in a place give another answer."""
    changed = "".join(str(int(digit) % 8 + 1) for digit in match[0])
    return _read(completion, match, changed) not in (before, None)


def _read(completion: str, match: re.Match[str], changed: str, choices: tuple[str, ...] = ()) -> str | None:
    text = completion[: match.start()] + changed + completion[match.end() :]
    return grading.extract(text, letters=not changed.isdigit(), choices=[*choices] or None).notation


def _last(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    """The last matches of a pattern, the last one first."""
    return list(pattern.finditer(text))[: -MAX_TRIED - 1 : -1]
