"""The end of a server's log, as far as its last start wrote it."""

from __future__ import annotations

import os
from pathlib import Path

TAIL_BYTES = 65536


class LogTail:
    """Reads a log to which start after start is appended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    def begin(self) -> None:
        """What is written from now on belongs to the next start."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._start = self.path.stat().st_size if self.path.exists() else 0

    def lines(self, count: int) -> list[str]:
        """The last lines since then; empty where there are none."""
        try:
            with open(self.path, "rb") as file:
                end = file.seek(0, os.SEEK_END)
                file.seek(max(self._start, end - TAIL_BYTES))
                return file.read().decode(errors="replace").splitlines()[-count:]
        except OSError:
            return []
