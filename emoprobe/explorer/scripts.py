"""Scripts that each hand one value to the page, of limited size."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_FILE = 300_000
MAX_BYTES = 300_000_000
Write = Callable[[str, str], None]


def script(name: str, value: Any) -> str:
    """Return a script that hands a value to the page."""
    content = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f"emoprobe({json.dumps(name)},{content})\n"


@dataclass
class Scripts:
    """Writes scripts until `limit` bytes are reached.

    Args:
        write: called with the name and the content of each file.
        limit: bytes of all files together.
    """

    write: Write
    limit: int = MAX_BYTES
    size: int = 0

    def add(self, name: str, value: Any, *, needed: bool = False) -> bool:
        """Write a script; return False where it exceeds the limit and is not needed."""
        content = script(name, value)
        size = len(content.encode())
        if self.size + size > self.limit and not needed:
            return False
        self.size += size
        self.write(f"{name}.js", content)
        return True


@dataclass
class Pages:
    """Gathers entries, each of one question, into numbered files of a few hundred kB.

    `places` is the number of the file of each question; -1: it exceeds the limit.
    """

    scripts: Scripts
    letter: str
    close: Callable[[list[Any]], Any] = list
    places: dict[int, int] = field(default_factory=dict)
    _entries: list[Any] = field(default_factory=list)
    _questions: list[int] = field(default_factory=list)
    _size: int = 0
    _count: int = 0

    def add(self, question: int, entries: list[Any], size: int) -> None:
        """Add the entries of a question, of about so many bytes."""
        self._entries += entries
        self._questions.append(question)
        self._size += size
        if self._size >= MAX_FILE:
            self.flush()

    def left_out(self, what: str, names: Sequence[str]) -> list[str]:
        """Return a sentence on the questions whose pages exceed the limit; none where there are no such questions.

        Args:
            what: what the pages hold, in the plural.
            names: ids of all questions, by their numbers.
        """
        missing = [names[question] for question, place in sorted(self.places.items()) if place < 0]
        if not missing:
            return []
        return [
            f"The {what} of {len(missing):,} of {len(self.places):,} questions ({missing[0]} to {missing[-1]}) exceed "
            "the size limit of the explorer and are only in the results folder."
        ]

    def flush(self) -> None:
        """Write what was gathered."""
        if self._questions:
            written = self.scripts.add(f"{self.letter}{self._count}", self.close(self._entries))
            self.places.update(dict.fromkeys(self._questions, self._count if written else -1))
            self._count += written
        self._entries, self._questions, self._size = [], [], 0
