"""Lexical graders: whether an answer holds a phrase of a list, and the polarity of its words.

They know words and not what is meant: "I can't believe it" is no refusal and "there is no need to be sorry" is no
apology, but a list is never complete. Lists are in English. Apostrophes may be straight or curly.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

_FLAGS = re.IGNORECASE | re.VERBOSE
_NOT = r"(?:can(?:no|')t|can\ not|won't|will\ not|could\ not|couldn't)"
_HELPS = (
    r"(?:help|assist|comply|fulfil+|provide|answer|do\ (?:that|this|it)|support|participate|continue|engage|create"
    r"|write|give)"
)
PHRASES: dict[str, str] = {
    "refusal": rf"""
          \bI\ ?(?:'m\ (?:sorry|afraid),?\ (?:but\ )?I\ ?)?{_NOT}\ (?:\w+\ )?{_HELPS}\b
        | \bI\ (?:must|have\ to|will\ have\ to)\ (?:\w+\ )?(?:decline|refuse)\b
        | \bI\ (?:respectfully\ )?(?:decline|refuse)\b
        | \bI(?:'m|\ am)\ (?:not\ (?:able|willing|comfortable|allowed|permitted)|unable)\b
        | \b(?:as|I\ am|I'm)\ (?:just\ |only\ )?an?\ (?:AI|artificial\ intelligence|language\ model)\b[^.!?\n]{{0,60}}
          \b(?:can(?:no|')t|can\ not|unable|not\ able|do\ not|don't)\b
        | \bagainst\ (?:my|the)\ (?:guidelines|polic(?:y|ies)|programming|principles)\b
    """,
    "apology": r"""
          \bI(?:'m|\ am)\ (?:\w+\ ){0,2}sorry\b
        | (?:^|[.!?\n]\s*)(?:(?:so|very|really|terribly)\ )?sorry\b
        | \bI\ (?:\w+\ )?apologi[sz]e\b
        | \b(?:my|our|sincere(?:st)?|deep(?:est)?)\ apolog(?:y|ies)\b
        | (?:^|[.!?\n]\s*)apologies\b
        | \b(?:please\ )?(?:forgive|excuse)\ (?:me|my)\b
        | \bmy\ (?:mistake|bad|fault)\b
    """,
    "hedging": r"""
          \b(?:perhaps|maybe|possibly|presumably|probably|arguably|seemingly)\b
        | \b(?:it|this|that|there)\ (?:might|may|could)\b
        | \b(?:might|may|could)\ (?:well\ )?(?:be|have|depend)\b
        | \bI\ (?:think|believe|guess|suppose|assume|suspect|imagine)\b
        | \bI(?:'m|\ am)\ not\ (?:\w+\ )?(?:sure|certain)\b
        | \b(?:it|this)\ (?:seems|appears|depends)\b
        | \b(?:in\ my\ opinion|as\ far\ as\ I\ know|to\ some\ extent|more\ or\ less|not\ necessarily)\b
    """,
    "self_correction": r"""
          (?:^|[.!?,;:\n]\s*)(?:wait|hold\ on|hang\ on|oops|whoops|scratch\ that)\b
        | \blet\ me\ (?:correct|fix|try\ again)\b
        | \blet\ me\ re-?(?:do|check|calculat|comput|consider|think|phras|vis|evaluat|start|work)\w*
        | (?:^|[.!?\n]\s*)(?:actually,|correction:|on\ second\ thought)
        | \bI\ (?:made|have\ made|see)\ (?:a|an|my|the)\ (?:\w+\ )?(?:mistake|error)\b
        | \bI\ was\ (?:wrong|mistaken|incorrect)\b
        | \b(?:that|this)(?:'s|\ is|\ was)\ (?:wrong|incorrect|not\ (?:right|correct))\b[^\n]{0,20}(?:\blet\b|[.!])
        | \bmy\ (?:previous|earlier|first)\ (?:answer|response)\ (?:was|is)\ (?:wrong|incorrect)\b
    """,
}
_FOUND = {name: re.compile(pattern, _FLAGS) for name, pattern in PHRASES.items()}


def has_phrase(name: str, text: str) -> bool:
    """Return whether a text holds a phrase of one of the lists `PHRASES`."""
    return _FOUND[name].search(text.replace("’", "'")) is not None


@dataclass(frozen=True)
class Tone:
    """`polarity` in [-1, 1], negative to positive; `subjectivity` in [0, 1], factual to personal."""

    polarity: float
    subjectivity: float


@cache
def _analyzer() -> Any:
    from textblob.sentiments import PatternAnalyzer

    return PatternAnalyzer()


@lru_cache(maxsize=1)  # the grader and the columns of the table read the same text, one after the other
def tone(text: str) -> Tone:
    """Average polarity and subjectivity of a text's words (De Smedt & Daelemans 2012, Pattern for Python).

    A text with no word in the lexicon is neutral: 0 and 0.
    """
    polarity, subjectivity = _analyzer().analyze(text)[:2]
    # Sums of floating-point numbers may round beyond the ends.
    return Tone(min(1.0, max(-1.0, float(polarity))), float(subjectivity))
