"""HTTP connections with limits: on headers, on the time that a client lets pass, on how many there are."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEADERS = 64 << 10  # bytes of a request line with its headers
MAX_CONNECTIONS = 8192
SPARE_FILES = 256  # of those that the process may open, for everything but connections
HEADER_SECONDS = 20.0  # from the first byte of a request, or the start of a connection, to the end of the headers
STALL_SECONDS = 120.0  # for which a client may take no byte of an answer
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def connection_limit() -> int:
    """Return how many connections this process can serve, having raised its limit of open files where it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - SPARE_FILES))


class LimitedProtocol(HttpToolsProtocol):
    """One connection.

    Past `limit` connections, the one that has waited longest without a request makes room for a new one, so that
    nobody locks others out by connections that ask for nothing.
    """

    limit = MAX_CONNECTIONS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reading_headers = False
        self._header_bytes = 0
        self._waiting_since = 0.0
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    @property
    def _waits(self) -> bool:
        """Whether no request of this connection is being served, or sent beyond its headers."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admit a connection, in the place of another one where there are too many."""
        super().connection_made(transport)
        self._waiting_since = self.loop.time()
        self._watch()
        if len(self.connections) > self.limit:
            idle = [other for other in self.connections if isinstance(other, LimitedProtocol) and other._waits]
            oldest = min(idle, key=lambda other: other._waiting_since)
            self.connections.discard(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the clocks."""
        for clock in (self._deadline, self._stalled):
            if clock is not None:
                clock.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes, within the limits on headers."""
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._reading_headers:
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADERS:
                self._refuse_headers()
                return
        self._watch()

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._reading_headers, self._header_bytes = True, 0

    def on_headers_complete(self) -> None:
        """Begin to serve a request."""
        self._reading_headers = False
        if self.transport.is_closing():
            return
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MAX_HEADERS:
            self._refuse_headers()
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body, unless its request was refused."""
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request, unless it was refused."""
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._waiting_since = self.loop.time()
        super().on_response_complete()

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that was idle for too long, also one whose client does not read."""
        self.transport.abort()

    def pause_writing(self) -> None:
        """Give a client that does not read some time."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALL_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Note that a client reads."""
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _watch(self) -> None:
        """Keep a clock while headers are awaited; `uvicorn` keeps the one of connections that are idle."""
        if not self._waits:
            if self._deadline is not None:
                self._deadline.cancel()
                self._deadline = None
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEADER_SECONDS, self._end_slow)

    def _end_slow(self) -> None:
        self._deadline = None
        if self._waits:
            self.transport.abort()

    def _refuse_headers(self) -> None:
        self.transport.write(TOO_LARGE)
        self.transport.close()
