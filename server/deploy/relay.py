"""Passes connections on to where a server stands now, and holds them while it stands nowhere.

A client therefore sees one address that is always there: a tunnel that breaks, or a server that is started again, costs
the connections that were open and no others.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable

CHUNK = 1 << 16
RETRY_SECONDS = 0.2
# Whoever asks for this wants to know whether the server stands; it is no request.
HEALTH = b"GET /health"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class GoneError(Exception):
    """Nothing will ever stand there again."""


class Relay:
    """Serves connections.

    Args:
        connect: opens a connection to the server, or raises OSError while there is none, GoneError where there will be
            none.
    """

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self._connect = connect
        self._used = time.monotonic()
        self._waiting = 0

    def idle_seconds(self) -> float:
        """Seconds since the last request or answer; 0 while an answer is waited for."""
        return 0.0 if self._waiting else time.monotonic() - self._used

    def touch(self) -> None:
        """Count this moment as used."""
        self._used = time.monotonic()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on, both ways, until either side ends it."""
        try:
            with contextlib.suppress(OSError, GoneError):
                first = await reader.read(CHUNK)
                if first:
                    await self._pass_on(first, reader, writer, counts=not first.startswith(HEALTH))
        finally:
            writer.close()

    async def _pass_on(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counts: bool
    ) -> None:
        answered = True

        def note(asked: bool) -> None:
            """Keep when something went by, and whether an answer to it is due."""
            nonlocal answered
            if counts:
                self._used = time.monotonic()
                self._waiting += int(answered) - int(not asked)
                answered = not asked

        note(asked=True)
        try:
            there_reader, there_writer = await self._connected(reader)
            there_writer.write(first)
            directions = [
                asyncio.create_task(_copy(reader, there_writer, lambda: note(asked=True))),
                asyncio.create_task(_copy(there_reader, writer, lambda: note(asked=False))),
            ]
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.gather(*directions, return_exceptions=True)
                there_writer.close()
        finally:
            note(asked=False)

    async def _connected(self, reader: asyncio.StreamReader) -> Streams:
        """A connection to the server, as soon as there is one.

        Raises:
            GoneError: there will be none, or the client has left.
        """
        while True:
            try:
                return await self._connect()
            except OSError:
                if reader.at_eof():
                    raise GoneError from None
                await asyncio.sleep(RETRY_SECONDS)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, note: Callable[[], None]) -> None:
    while chunk := await source.read(CHUNK):
        note()
        target.write(chunk)
        await target.drain()
