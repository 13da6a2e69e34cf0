"""Answers of what takes longer than a plan should, kept as long as nothing that they are about changes."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from emoprobe.results import atomic

# Where a plan keeps what it need not find out twice; relative to the working directory.
CHECKS = Path(".snakemake/emoprobe")
# The file that holds the answers, below the folder that the caller names.
REMEMBERED = "checks.json"
MAX_REMEMBERED = 100
_ANSWERS = TypeAdapter(dict[str, list[str]])


def remembered(cache: Path | None, about: Any, ask: Callable[[], list[str]]) -> list[str]:
    """An answer of so many lines, asked again only where something that it is about has changed.

    Args:
        cache: the folder; None: ask.
        about: plain values.
        ask: gives the answer.
    """
    if cache is None:
        return ask()
    path = cache / REMEMBERED
    key = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode()).hexdigest()[:16]
    try:
        known = _ANSWERS.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        known = {}
    if key in known:
        return known[key]
    found = ask()
    kept = dict(list(known.items())[-MAX_REMEMBERED + 1 :]) | {key: found}
    with contextlib.suppress(OSError):  # a plan may be made where nothing can be written
        atomic.write_json(path, kept)
    return found


def version(package: str) -> str | None:
    """The version of an installed package; None where it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
