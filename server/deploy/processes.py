"""Processes that outlive the command that started them, known by a file so that exactly they are ended."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from emoprobe.results import atomic

END_SECONDS = 30.0


@dataclass(frozen=True)
class Process:
    """A process: its number, and when it was started (in ticks since the boot), as numbers are used again."""

    number: int
    started: int

    @classmethod
    def of(cls, number: int) -> Process | None:
        """The process that has a number now; None where there is none, or only its remains."""
        try:
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else cls(number, int(fields[19]))

    @classmethod
    def read(cls, path: Path) -> Process | None:
        """The process in a file; None where there is no file."""
        try:
            number, started = path.read_text().split()
            return cls(int(number), int(started))
        except (OSError, ValueError):
            return None

    def write(self, path: Path) -> None:
        """Put it into a file."""
        atomic.write_text(path, f"{self.number} {self.started}\n")

    @property
    def lives(self) -> bool:
        """Whether it is still there."""
        return Process.of(self.number) == self

    def end(self, seconds: float = END_SECONDS) -> None:
        """Ask it to end; after so many seconds do not ask any more. It is gone when this returns."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            deadline = time.monotonic() + seconds
            with contextlib.suppress(ProcessLookupError):
                if self.lives:
                    os.kill(self.number, number)
            while self.lives and time.monotonic() < deadline:
                time.sleep(0.05)


def write_own(path: Path) -> None:
    """Put this process into a file."""
    process = Process.of(os.getpid())
    assert process is not None
    process.write(path)


def end(path: Path) -> None:
    """End the process in a file, and remove the file."""
    process = Process.read(path)
    if process is not None:
        process.end()
    path.unlink(missing_ok=True)
