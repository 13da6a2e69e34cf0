"""How a model server comes to stand and goes: what every kind of worker has in common.

A local process (`local_process`) and a server that somebody else runs (`endpoint`) are the kinds that there are. A new
kind is one new module with a class that follows `Launcher`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class LaunchError(RuntimeError):
    """The machine cannot hold the servers that were asked for."""


@dataclass(frozen=True)
class Exit:
    """How a server ended. `again`: another start may do better, as it was killed or lost its port."""

    reason: str
    again: bool


class Launcher(Protocol):
    """Starts one server, tells whether it still stands, and ends it. It may be started again after `stop`."""

    foreign: bool
    """Whether somebody else runs the server: it is never started or ended here, and may lie behind a gateway."""

    async def start(self) -> str:
        """Start the server and return its base URL, without `/v1`. Where places are queued for, wait for one.

        Raises:
            LaunchError: it cannot be started.
        """
        ...

    def exited(self) -> Exit | None:
        """How the server ended; None while it stands."""
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
        """Where those lines lie, for a person."""
        ...
