"""The log of a server: its end, and the step of the start that it shows."""

from __future__ import annotations

import os
import re
from pathlib import Path

TAIL_BYTES = 65536


class LogTail:
    """Reads a log to which start after start is appended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    def begin(self) -> None:
        """Begin the log of the next start."""
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


WIDTH = 100
# What vLLM writes when it begins with something. The last line of the log that holds one of these counts.
_MARKS = (
    ("Resolved architecture", "reading the configuration"),
    ("LLM engine (", "starting the engine"),
    ("Starting to load model", "loading the model"),
    ("Loading safetensors", "loading the model"),
    ("Loading weights took", "preparing the cache"),
    ("torch.compile takes", "compiling"),
    ("Capturing CUDA graphs", "capturing CUDA graphs"),
    ("init engine (", "opening its port"),
)
_PREFIX = re.compile(
    r"^(?:\([^)]*pid=\d+\)\s*)?(?:[A-Z]+ )?(?:\d{4}-)?\d\d-\d\d \d\d:\d\d:\d\d\S*\s+(?:[A-Z]+ )?(?:\[[^]]*\]\s*)?"
)


def phase_of(lines: list[str]) -> str:
    """Return the phase of a server that is not healthy yet, from its log."""
    for line in reversed(lines):
        for mark, words in _MARKS:
            if mark in line:
                return words
    return "loading its libraries"


def last_line(lines: list[str]) -> str:
    """The last line that says something, without date and process, shortened to be read beside others."""
    for line in reversed(lines):
        text = " ".join(_PREFIX.sub("", line).split())
        if text:
            return text if len(text) <= WIDTH else text[: WIDTH - 2] + " …"
    return ""
