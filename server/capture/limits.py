"""Limits on connections and requests: headers, bodies, times, counts, and the API key."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import math
import resource
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.capture.errors import AsciiJSON, error_body

OPEN_PATHS = frozenset({"/health"})
BODY_SECONDS = 60.0  # that a body may take to arrive
PATIENCE_SECONDS = 2.0  # after which a body that is still on its way may have to make room for others
MAX_ARRIVING = 1024  # bodies on their way
# Bytes that JSON becomes as Python objects, beside its text: for each list or object, and for each value in one.
CONTAINER, VALUE = 64, 40


class RequestLimits:
    """ASGI middleware. Without a key, everybody who reaches the port is let in.

    A body is read before its request counts as one of `max_requests`: clients that send half of one, or byte by byte,
    keep nobody out. There is a time for it, and of too many at once the oldest are refused.

    Args:
        app: the application.
        api_key: the key that every request but `/health` needs.
        max_body: bytes of one body.
        max_bodies: bytes of all bodies, as they come and as Python objects.
        max_requests: requests at once.
    """

    def __init__(self, app: ASGIApp, api_key: str | None, max_body: int, max_bodies: int, max_requests: int) -> None:
        self._app = app
        self._key = None if api_key is None else api_key.encode()
        self._max_body, self._max_bodies, self._max_requests = max_body, max_bodies, max_requests
        self._running = self._held = 0
        self._arriving: dict[asyncio.Timeout, float] = {}  # the oldest first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        body = _Body(self)
        try:
            if self._key is not None and not self._authorised(scope):
                raise HTTPException(401, "the API key is missing or wrong", {"WWW-Authenticate": "Bearer"})
            if not await self._arrive(body, receive):
                return
            if self._running >= self._max_requests:
                raise HTTPException(429, "too many requests at once", {"Retry-After": "1"})
            self._running += 1
            try:
                await self._app(scope, body.again(receive), send)
            finally:
                self._running -= 1
        except HTTPException as error:
            await _refusal(error.status_code, error.detail, error.headers)(scope, receive, send)
        finally:
            self._held -= body.size

    def _authorised(self, scope: Scope) -> bool:
        given: Any = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, key = given.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._key or b"")

    async def _arrive(self, body: _Body, receive: Receive) -> bool:
        """Read a whole body; False where the client goes away before.

        Raises:
            HTTPException: it takes too long, or is larger than what the server holds.
        """
        now = asyncio.get_running_loop().time()
        if len(self._arriving) >= MAX_ARRIVING:
            self._make_room(1)
        clock = asyncio.timeout(BODY_SECONDS)
        self._arriving[clock] = now
        try:
            async with clock:
                return await body.read(receive)
        except TimeoutError:
            close = {"Connection": "close", "Retry-After": "1"}
            raise HTTPException(408, "the body of the request did not arrive in time", close) from None
        finally:
            del self._arriving[clock]

    def _make_room(self, most: float) -> None:
        """Refuse bodies that have been on their way for long."""
        now = asyncio.get_running_loop().time()
        for clock, since in self._arriving.items():
            if most < 1 or now - since < PATIENCE_SECONDS:
                return
            if not clock.expired() and (clock.when() or 0.0) > now:
                clock.reschedule(now)
                most -= 1

    def take(self, size: int, length: int, whole: int) -> None:
        """Count a part of a body, of which `length` bytes are here, which take `whole` bytes.

        Raises:
            HTTPException: this body, or all of them together, are larger than the server holds.
        """
        self._held += size
        if length > self._max_body:
            raise HTTPException(413, f"the body is larger than {self._max_body} bytes")
        if whole > self._max_bodies:
            raise HTTPException(413, f"the values in the body take more than {self._max_bodies} bytes")
        if self._held > self._max_bodies:
            self._make_room(math.inf)
            raise HTTPException(429, "too many large requests at once", {"Retry-After": "1"})


class _Body:
    """The body of one request; `size` is what it takes, in bytes."""

    def __init__(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._content = bytearray()
        self.size = 0

    async def read(self, receive: Receive) -> bool:
        """Read it; False where the client goes away before."""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            part = message.get("body", b"")
            self._content += part
            self._take(len(part))
            more = message.get("more_body", False)
        count = self._content.count
        self._take(CONTAINER * (count(b"[") + count(b"{")) + VALUE * count(b","))
        return True

    def _take(self, size: int) -> None:
        self.size += size
        self._limits.take(size, len(self._content), self.size)

    def again(self, receive: Receive) -> Receive:
        """Pass the whole body to the application, then what follows."""
        content: bytes | None = bytes(self._content)
        self._content = bytearray()

        async def received() -> Message:
            nonlocal content
            if content is None:
                return await receive()
            message, content = {"type": "http.request", "body": content, "more_body": False}, None
            return message

        return received


class LocalOnly:
    """ASGI middleware for a server without a key: requests must come from this machine, and not through a page.

    A web page that a browser shows can send requests to the loopback interface, and, where its host's name resolves to
    it (DNS rebinding), read the answers. Such requests name another host, or another origin.

    Args:
        app: the application.
        host: the address that the server listens at.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app, self._host = app, host.lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        names = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        advice = "to serve others, start it with a key in EMOPROBE_API_KEY"
        if len(names) != 1 or not self._is_here(f"http://{names[0]}"):
            text = (
                f"Host {', '.join(names)[:200]!r} is not this server; accepted: localhost, 127.0.0.1, [::1]; {advice}"
            )
            await _refusal(421, text)(scope, receive, send)
        elif not all(self._is_here(origin) for origin in origins):
            text = f"requests of pages from {', '.join(origins)[:200]!r} are not accepted, only of local ones; {advice}"
            await _refusal(403, text)(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _is_here(self, url: str) -> bool:
        try:
            host = urlsplit(url).hostname or ""
            return host in ("localhost", self._host) or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False


def _refusal(status: int, message: str, headers: Mapping[str, str] | None = None) -> AsciiJSON:
    return AsciiJSON(error_body(message, status), status, dict(headers or {}))


MAX_HEADERS = 64 << 10  # bytes of a request line with its headers
MAX_CONNECTIONS = 8192
SPARE_FILES = 256  # of those that the process may open, for everything but connections
HEADER_SECONDS = 20.0  # from the first byte of a request, or the start of a connection, to the end of the headers
STALL_SECONDS = 120.0  # for which a client may take no byte of an answer
TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def connection_limit() -> int:
    """Return how many connections this process can serve, having raised its limit of open files where it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = MAX_CONNECTIONS + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(hard, files)
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
