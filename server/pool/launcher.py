"""Start, monitor and stop one model server: the interface that every kind of server follows.

A local process (`local_process`), a SLURM job (`slurm.job`) and a server that somebody else runs (`Endpoint`) are the
kinds. A new kind is one new module with a class that follows `Launcher`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol


class LaunchError(RuntimeError):
    """The machine cannot hold the servers that were asked for."""


@dataclass(frozen=True)
class Exit:
    """End of a server.

    `again`: another start may do better, as it was killed or lost its port. `counts`: that start is one of
    `workers.restarts`; a server that was taken away through no fault of its own costs none.
    """

    reason: str
    again: bool
    counts: bool = True


class EndedError(Exception):
    """A server that ended before it had an address."""

    def __init__(self, ended: Exit) -> None:
        super().__init__(ended.reason)
        self.ended = ended


class Launcher(Protocol):
    """Starts one server, tells whether it still stands, and ends it. It may be started again after `stop`."""

    foreign: bool
    """Whether somebody else runs the server: it is never started or ended here, and may lie behind a gateway."""

    async def start(self) -> str:
        """Start the server and return its base URL, without `/v1`. Where places are queued for, wait for one.

        Raises:
            LaunchError: it cannot be started.
            EndedError: it ended before it had a URL.
        """
        ...

    def exited(self) -> Exit | None:
        """Return how the server ended; None while it runs."""
        ...

    async def wait(self) -> Exit:
        """Wait until the server ends; a foreign one never does."""
        ...

    async def stop(self) -> None:
        """End the server and everything that it has started. Nothing of it is left when this returns.

        Where it is cancelled, it is called again.
        """
        ...

    def log_lines(self, count: int) -> list[str]:
        """The last lines that the server has written since it was started; empty where they cannot be known."""
        ...

    def log_name(self) -> str:
        """Return the location of those lines, for messages."""
        ...

    @property
    def nonce(self) -> str:
        """Secret that the server must prove to know; empty where its address is certain."""
        return ""

    @property
    def hardware(self) -> str | None:
        """Hardware of the server, where it is known only after the start."""
        return None

    def waits(self) -> str:
        """Return what `start` waits for, for messages; empty while it waits for nothing."""
        return ""

    async def lost(self, reason: str, *, listening: bool) -> Exit:
        """Return how a server that stopped answering ended, given whether its port is still `listening`."""
        return Exit(reason, again=True)


@dataclass
class Endpoint(Launcher):
    """A launcher that starts nothing: it only knows the server's URL."""

    url: str
    foreign: bool = True

    async def start(self) -> str:
        """The base URL, without `/v1`."""
        return self.url.removesuffix("/v1")

    def exited(self) -> Exit | None:
        """Nothing is known of its process."""
        return None

    async def wait(self) -> Exit:
        """Wait for ever: health checks tell when it is gone."""
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async def stop(self) -> None:
        """Leave it alone."""

    def log_lines(self, count: int) -> list[str]:
        """Its log lies elsewhere."""
        return []

    def log_name(self) -> str:
        """The log of a server that somebody else runs is not known."""
        return self.url
