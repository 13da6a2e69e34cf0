"""Comparison of texts, under named normalisations."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Sequence

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
# Punctuation, and neither signs of numbers nor symbols, which can be all that tells two answers apart.
_MARKS = r"\s.,;:!?\"'“”‘’«»()\[\]{}*_`…—–-"
_EDGES = re.compile(rf"^(?:(?!-\d)[{_MARKS}])+|[{_MARKS}]+$")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def plain(text: str) -> str:
    """Text in Unicode NFKC and lower case, with one space for white space and no punctuation at either end."""
    return _EDGES.sub("", " ".join(unicodedata.normalize("NFKC", text).casefold().split()))


def squad(text: str) -> str:
    """Text in lower case without ASCII punctuation and articles, as SQuAD's evaluation script compares it."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


NORMALISED: dict[str, Callable[[str], str]] = {"none": lambda text: text, "plain": plain, "squad": squad}


def matches(text: str, patterns: Sequence[str], match: str, normalise: str) -> bool:
    """Return whether a text equals (`exact`), `contains` or matches (`regex`) one of some patterns.

    Args:
        text: the text.
        patterns: what it is compared with; normalised alike unless they are regular expressions.
        match: the kind of comparison.
        normalise: a key of `NORMALISED`.
    """
    normal = NORMALISED[normalise]
    said = normal(text)
    if match == "regex":
        return any(re.search(pattern, said) for pattern in patterns)
    wanted = [normal(pattern) for pattern in patterns]
    # A pattern that is nothing but punctuation would equal every such text, and be contained in every text.
    return any(bool(one) and (said == one if match == "exact" else one in said) for one in wanted)
