"""A model server that somebody else runs."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from server.pool.launcher import Exit, Launcher


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
