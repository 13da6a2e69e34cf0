"""Text that users and models write: its lines, and characters that no UTF-8 file can hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any


def split_lines(text: str) -> list[str]:
    """Split text at line feeds alone.

    `str.splitlines` also splits at U+2028, U+2029, U+0085, form feeds and other characters, which may stand inside a
    line: JSON does not escape all of them, and a model may write any.
    """
    return text.split("\n")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type where it has no message."""
    return split_lines(str(error).strip())[0].rstrip() or type(error).__name__


def hashed_number(text: str, bits: int) -> int:
    """Return a number in [0, 2**bits) that looks random and follows from a text alone: the start of its SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest(), "big") >> (256 - bits)


def filled_lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file of JSON lines that are not blank, each after its number from 1."""
    yield from ((number, line) for number, line in enumerate(content.split(b"\n"), 1) if line.strip())


def half_surrogate(value: Any, name: str = "") -> str | None:
    r"""Return the place of the first half of a surrogate pair in plain values, such as `messages.0.content`.

    JSON and YAML can spell one, as in `\ud83d`. UTF-8 has no bytes for it, so no file can hold it.

    Args:
        value: text, numbers, mappings and lists; anything else is passed over.
        name: the place of `value` itself.

    Returns:
        The place, or None where there is none.
    """
    waiting: list[tuple[str, Any]] = [(name, value)]
    seen: set[int] = set()  # aliases of YAML share what they name
    while waiting:
        place, here = waiting.pop()
        if isinstance(here, str):
            if not _is_unicode(here):
                return place
        elif isinstance(here, Mapping | list | tuple) and id(here) not in seen:
            seen.add(id(here))
            entries = here.items() if isinstance(here, Mapping) else enumerate(here)
            inner = [(f"{place}.{key}" if place else str(key), entry) for key, entry in entries]
            if (key := next((key for key, _ in inner if not _is_unicode(key)), None)) is not None:
                return ascii(key)[1:-1]
            waiting += reversed(inner)
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
