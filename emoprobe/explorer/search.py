"""An index of words: which questions and which conversations hold a word.

Words are runs of letters and digits in lower case; each character of scripts without spaces is a word. `search.ts`
splits a query in the same way.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

MAX_WORD = 32
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_UNSPACED}]|(?:(?![{_UNSPACED}])[^\\W_])+")
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"


def words(text: str) -> set[str]:
    """Return the words of a text, each at most 32 characters long."""
    return {word[:MAX_WORD] for word in _WORD.findall(text.lower())}


def shard(word: str) -> str:
    """Return the name of the file that holds a word: by its first character, `other` outside of a-z and 0-9."""
    return word[0] if word[0].isascii() else "other"


class WordIndex:
    """Words with the numbers of the questions and of the conversations that hold them, added in ascending order."""

    def __init__(self) -> None:
        self._questions: dict[str, list[int]] = defaultdict(list)
        self._rows: dict[str, list[int]] = defaultdict(list)

    def add_question(self, number: int, text: str) -> None:
        """Add the text of a question."""
        for word in words(text):
            self._questions[word].append(number)

    def add_row(self, number: int, texts: Iterable[str]) -> None:
        """Add the texts of a conversation that are its own."""
        for word in set().union(*map(words, texts)):
            self._rows[word].append(number)

    def shards(self) -> dict[str, list[tuple[str, str, str]]]:
        """Return file name → its words in order, each with its conversations and its questions (see `encoded`)."""
        files: dict[str, list[tuple[str, str, str]]] = {}
        for word in sorted(self._questions.keys() | self._rows.keys()):
            entry = (word, encoded(self._rows.get(word, [])), encoded(self._questions.get(word, [])))
            files.setdefault(shard(word), []).append(entry)
        return files


def encoded(numbers: list[int]) -> str:
    """Return ascending numbers as their differences in base 36, `*` and a count behind one that is repeated."""
    parts: list[str] = []
    last, step, count = 0, -1, 0
    for number in [*numbers, -1]:
        if number - last == step and number >= 0:
            count += 1
        else:
            if count:
                parts.append(_base36(step) + (f"*{_base36(count)}" if count > 1 else ""))
            step, count = number - last, 1
        last = number
    return " ".join(parts)


def _base36(number: int) -> str:
    digits = _BASE36[number % 36]
    while number := number // 36:
        digits = _BASE36[number % 36] + digits
    return digits
