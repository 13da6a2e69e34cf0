"""Digests of the library's own code, so that what it computes is computed again when it changes."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path

LIBRARY = Path(__file__).parents[1]
# Only what decides a number or a sentence: how files are read and written is held to its contract by tests.
DECIDING = ("emoprobe.tasks.", "emoprobe.analysis.", "emoprobe.report.", "emoprobe.steering.")
_IMPORT = re.compile(
    r"^\s*(?:from (emoprobe[\w.]*) import ([\w, ()\n]+?)(?=\n\S|\n\n|$)|import (emoprobe[\w.]+))", re.MULTILINE
)


def code_digest(*modules: str) -> str:
    """Twelve hexadecimal digits that stand for the source of some modules and of all that they import.

    Args:
        modules: dotted names of modules or packages of the library; a package stands for everything in it.

    Raises:
        LookupError: there is no such module.
    """
    found: set[Path] = set()
    for module in modules:
        place = LIBRARY.parent.joinpath(*module.split("."))
        roots = sorted(place.rglob("*")) if place.is_dir() else [place.with_suffix(".py")]
        if not roots or not all(root.exists() for root in roots):
            raise LookupError(f"there is no module {module}")
        for root in roots:
            if root.is_file() and "__pycache__" not in root.parts:
                found |= _closure(root)
    digest = hashlib.sha256()
    for path in sorted(found):
        digest.update(f"{path.relative_to(LIBRARY)}\0".encode() + _content(path))
    return digest.hexdigest()[:12]


@cache
def _content(path: Path) -> bytes:
    return hashlib.sha256(path.read_bytes()).digest()


def _closure(root: Path) -> frozenset[Path]:
    """A file and all deciding modules that it imports, directly or not."""
    seen: set[Path] = set()
    waiting = [root]
    while waiting:
        path = waiting.pop()
        if path not in seen:
            seen.add(path)
            waiting += _imported(path)
    return frozenset(seen)


@cache
def _imported(path: Path) -> list[Path]:
    if path.suffix != ".py":
        return []
    found = []
    for module, names, plain in _IMPORT.findall(path.read_text(encoding="utf-8")):
        candidates = [plain] if plain else [module, *(f"{module}.{name}" for name in re.findall(r"\w+", names))]
        for candidate in candidates:
            place = LIBRARY.parent.joinpath(*candidate.split(".")).with_suffix(".py")
            if f"{candidate}.".startswith(DECIDING) and place.is_file():
                found.append(place)
    return found
