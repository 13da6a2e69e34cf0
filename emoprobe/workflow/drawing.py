"""Draw samples in one child process of the workflow: a process for each of thousands would take a second each.

`snakemake --executor emoprobe` hands samples to `SampleProcess`; other executors run the command of each request.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

SERVE = "--serve"
TAIL = 2000  # characters


@dataclass(frozen=True)
class SampleRequest:
    """One sample to draw; as text, the command that draws it.

    Attributes:
        script: the command of `scripts/prepare_sample.py`, without options.
        config: the resolved config of the experiment.
        folder: the folder of the experiment.
        sample: the id of the sample.
        order: the turn of the experiment's model, and the place of the experiment.
    """

    script: tuple[str, ...]
    config: str
    folder: str
    sample: str
    order: tuple[int, int]

    def __str__(self) -> str:
        options = ["--config", self.config, "--experiment", self.folder, self.sample]
        return shlex.join([*self.script, *options])


class SampleProcess:
    """Draws samples in a child process, which starts with the first request and ends when its input is closed.

    Args:
        script: the command of `scripts/prepare_sample.py`.
        answered: called in a thread of this object, exactly once for each request, with its number and the reason why
            it failed, empty where it succeeded; must not raise.
    """

    def __init__(self, script: Iterable[str], answered: Callable[[int, str], None]) -> None:
        self._script, self._answered = list(script), answered
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._waiting: set[int] = set()

    def ask(self, requests: Iterable[tuple[int, SampleRequest]]) -> None:
        """Have numbered samples drawn."""
        numbered = dict(requests)
        with self._lock:
            self._waiting |= numbered.keys()
            try:
                process = self._process = self._process or self._start()
            except OSError as error:
                process, reason = None, f"The process that draws samples cannot be started: {error}\n"
        if process is None:
            self._fail(reason)
            return
        assert process.stdin is not None
        lines = [json.dumps([number, each.config, each.folder, each.sample]) for number, each in numbered.items()]
        with suppress(OSError, ValueError):  # a process that has ended is noticed where its answers are read
            process.stdin.write("".join(f"{line}\n" for line in lines))
            process.stdin.flush()

    def close(self) -> None:
        """End the process without an answer to the requests that are left."""
        with self._lock:
            self._waiting.clear()
            process, self._process = self._process, None
        if process is not None:
            process.kill()

    def _start(self) -> subprocess.Popen[str]:
        errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed by the reader)
        process = subprocess.Popen(
            [*self._script, SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            encoding="utf-8",
            errors="surrogateescape",
            start_new_session=True,  # Ctrl-C is for Snakemake, which lets jobs in flight end
        )
        threading.Thread(target=self._read, args=(process, errors), name="samples", daemon=True).start()
        return process

    def _read(self, process: subprocess.Popen[str], errors: IO[str]) -> None:
        """Pass on the answers of a process until it ends."""
        assert process.stdout is not None
        with process, errors:
            with suppress(ValueError):
                for line in process.stdout:
                    number, reason = json.loads(line)
                    self._answer(number, reason)
            process.kill()
            status = process.wait()
            errors.seek(0)
            tail = errors.read()[-TAIL:]
        with self._lock:
            if self._process is not process:  # closed
                return
            self._process = None
        self._fail(f"The process that draws samples ended with status {status}:\n{tail}\n")

    def _fail(self, reason: str) -> None:
        with self._lock:
            numbers = sorted(self._waiting)
        for number in numbers:
            self._answer(number, reason)

    def _answer(self, number: int, reason: str) -> None:
        with self._lock:
            if number not in self._waiting:
                return
            self._waiting.remove(number)
        self._answered(number, reason)
