"""A model server that is a process of the pool on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from server.pool.launcher import Exit, Launcher
from server.pool.server_log import LogTail

log = logging.getLogger(__name__)

STOP_SECONDS = 5.0
PORT_TAKEN = f"[Errno {errno.EADDRINUSE}]"


@dataclass(frozen=True)
class Command:
    """A command line that starts a server at a port, its environment, and the cores that it may use (empty: all)."""

    line: list[str]
    env: dict[str, str]
    cores: list[int]
    port: int


class LocalProcess(Launcher):
    """Starts a server as a process group of its own, whose output is appended to a log.

    Args:
        name: the worker's.
        make: the command of each start; a port that was free for one may be taken at the next.
        log_path: where its output goes.
    """

    foreign = False

    def __init__(self, name: str, make: Callable[[], Command], log_path: Path) -> None:
        self._name, self._make, self._tail = name, make, LogTail(log_path)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def process_id(self) -> int | None:
        """The number of the process; None while there is none."""
        return None if self._process is None else self._process.pid

    async def start(self) -> str:
        """Start the process; return the URL at which it will listen.

        Raises:
            LaunchError: no port is free, or the environment cannot use the GPU.
            OSError: the log cannot be written, or the command cannot be run.
        """
        command = self._make()
        self._tail.begin()
        with open(self._tail.path, "ab") as output:
            self._process = await asyncio.create_subprocess_exec(
                *command.line,
                env=command.env,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,
            )
        if command.cores:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(self._process.pid, command.cores)
        url = f"http://127.0.0.1:{command.port}"
        log.info("%s: process %d at %s", self._name, self._process.pid, url)
        return url

    def exited(self) -> Exit | None:
        """Return how the process ended; None while it runs."""
        status = None if self._process is None else self._process.returncode
        return None if status is None else self._exit(status)

    async def wait(self) -> Exit:
        """Wait until the process ends."""
        assert self._process is not None
        return self._exit(await self._process.wait())

    async def stop(self) -> None:
        """End the whole process group: asked first, then without asking. Where this is cancelled, call it again."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        self._process = None

    def log_lines(self, count: int) -> list[str]:
        """The last lines of its output since it was started."""
        return self._tail.lines(count)

    def log_name(self) -> str:
        """The path of its log."""
        return str(self._tail.path)

    def _exit(self, status: int) -> Exit:
        words = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
        return Exit(words, status < 0 or PORT_TAKEN in "\n".join(self.log_lines(25)))
