"""Dates of files after the machine's clock went back: what was made before it seems to come from the future."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

TOLERANCE = 1.0  # seconds that file systems and clocks may differ by


def date_to_now(paths: Iterable[Path]) -> int:
    """Date files that are newer than now to now, and return how many there were.

    Snakemake fails a job, and removes what it made, where an input is newer than the output; it would do so until the
    clock has caught up. Files that cannot be changed, or are gone, are left as they are.
    """
    count, now = 0, time.time()
    for path in paths:
        with suppress(OSError):
            if path.stat().st_mtime > now + TOLERANCE:
                os.utime(path, (now, now))
                count += 1
    return count


def files_below(folder: Path) -> Iterable[Path]:
    """Every file below a folder."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in names)
