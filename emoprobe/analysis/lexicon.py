"""The tone of a text, by TextBlob's pattern lexicon, which the package carries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Tone:
    """`polarity` in [-1, 1], negative to positive; `subjectivity` in [0, 1], factual to personal."""

    polarity: float
    subjectivity: float


@cache
def _analyzer() -> Any:
    from textblob.sentiments import PatternAnalyzer

    return PatternAnalyzer()


def tone(text: str) -> Tone:
    """Average polarity and subjectivity of a text's words (De Smedt & Daelemans 2012, Pattern for Python).

    A text with no word in the lexicon is neutral: 0 and 0.
    """
    polarity, subjectivity = _analyzer().analyze(text)[:2]
    return Tone(float(polarity), float(subjectivity))
