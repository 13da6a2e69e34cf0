"""Whether a completion is right, by a strict reading and a lenient one, and whether it is in the form asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from emoprobe.graders.answers import LETTERS, canonical, is_letter, parse_number
from emoprobe.graders.extraction import Extracted, Extraction, extract_letter, extract_number

_THINK_END = re.compile(r"</think(?:ing)?>")
_THINK_START = re.compile(r"<think(?:ing)?>")
_COMPLIANT = re.compile(r"^[ \t]*Answer:[ \t]*\[?[ \t]*([^\[\]\n]+?)[ \t]*\]?[ \t]*\.?[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Grade:
    """The answer of a completion and its grade.

    `extracted` is the answer as an exact number or a letter (None: there is none), `text` how it was written,
    `extraction` how it was found, `compliant` whether it was given in the form that the prompt asks for. `lenient` says
    whether it equals the gold answer; `correct` is the strict reading: it was also marked as the final answer, or is
    all that the completion says, in a completion that is finished and does not end within a thought.
    """

    extracted: Fraction | str | None
    text: str | None
    extraction: Extraction
    compliant: bool
    correct: bool
    lenient: bool

    @property
    def answer(self) -> str | None:
        """The extracted answer in its shortest exact notation."""
        return canonical(self.extracted) if isinstance(self.extracted, Fraction) else self.extracted


def visible(completion: str) -> str:
    """The completion without its reasoning block, where something follows it.

    A block that never ends, or one that nothing follows, is all there is to read, so it is kept.
    """
    parts = _THINK_END.split(completion)
    if len(parts) > 1 and parts[-1].strip():
        return parts[-1]
    return _THINK_START.sub("", _THINK_END.sub("", completion))


def ends_within_thought(completion: str) -> bool:
    """Return whether a reasoning block begins and does not end."""
    return _THINK_START.search(_THINK_END.split(completion)[-1]) is not None


def extract(completion: str, *, letters: bool = False, choices: list[str] | None = None) -> Extracted:
    """The final answer of a completion: an exact number or, with `letters`, the letter of one of the `choices`."""
    text = visible(completion)
    return extract_letter(text, choices) if letters else extract_number(text)


def is_compliant(completion: str, *, letters: bool = False, choices: list[str] | None = None) -> bool:
    """Return whether the last non-empty line is `Answer: ` and one number or letter; allow brackets and a full stop."""
    lines = visible(completion).strip().splitlines()
    match = _COMPLIANT.fullmatch(lines[-1]) if lines else None
    if match is None:
        return False
    if letters:
        return len(match[1]) == 1 and match[1] in (LETTERS[: len(choices)] if choices else LETTERS)
    return parse_number(match[1]) is not None


def grade(completion: str, gold: str | Fraction, *, finished: bool = True, choices: list[str] | None = None) -> Grade:
    """Grade a completion against the gold answer, by exact comparison.

    Args:
        completion: what the model wrote.
        gold: a number, also in any notation that `parse_number` reads, or the letter of an option.
        finished: whether the model ended by itself; False for a completion that was cut off.
        choices: the options of a multiple-choice question, where they are known.

    Raises:
        ValueError: the gold answer is neither a number nor a letter.
    """
    letters = isinstance(gold, str) and is_letter(gold)
    expected = gold if letters or isinstance(gold, Fraction) else parse_number(gold)
    if expected is None:
        raise ValueError(f"the gold answer {gold!r} is neither a number nor a letter")
    extracted = extract(completion, letters=letters, choices=choices)
    right = extracted.value == expected
    final = finished and extracted.extraction in ("marker", "boxed") and not ends_within_thought(completion)
    return Grade(
        extracted=extracted.value,
        text=extracted.text,
        extraction=extracted.extraction,
        compliant=is_compliant(completion, letters=letters, choices=choices),
        correct=right and final,
        lenient=right,
    )


def grade_if_gold(
    completion: str, gold: str | None, *, finished: bool = True, choices: list[str] | None = None
) -> Grade | None:
    """Grade a completion as `grade`; None where there is no gold answer, or it is neither a number nor a letter."""
    if gold is None or not (is_letter(gold) or parse_number(gold) is not None):
        return None
    return grade(completion, gold, finished=finished, choices=choices)


def efficiency(completion_tokens: int, max_tokens: int) -> float:
    """The share of the token budget that was left unspent, in [0, 1]: 0 for a completion that was cut off."""
    return max(0.0, 1.0 - completion_tokens / max_tokens)
