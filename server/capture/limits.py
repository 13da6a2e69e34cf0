"""What stands between the network and the routes: the API key, the size of bodies, the number of requests."""

from __future__ import annotations

import hmac
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.capture.answers import error_body
from server.capture.responses import AsciiJSON

OPEN_PATHS = frozenset({"/health"})


class RequestLimits:
    """ASGI middleware. Without a key, everybody who reaches the port is let in."""

    def __init__(self, app: ASGIApp, api_key: str | None, max_body: int, max_bodies: int, max_requests: int) -> None:
        self._app = app
        self._key = None if api_key is None else api_key.encode()
        self._max_body, self._max_bodies, self._max_requests = max_body, max_bodies, max_requests
        self._running = self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        if self._key is not None and not self._authorised(scope):
            refusal = AsciiJSON(error_body("the API key is missing or wrong", 401), 401, {"WWW-Authenticate": "Bearer"})
        elif self._running >= self._max_requests:
            refusal = AsciiJSON(error_body("too many requests at once", 429), 429, {"Retry-After": "1"})
        else:
            self._running += 1
            body = _Body(self, receive)
            try:
                await self._app(scope, body.receive, send)
            finally:
                self._running -= 1
                self._held -= body.size
            return
        await refusal(scope, receive, send)

    def _authorised(self, scope: Scope) -> bool:
        given: Any = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, key = given.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._key or b"")

    def take(self, size: int, so_far: int) -> None:
        """Count a part of a body.

        Raises:
            HTTPException: this body, or all of them together, are larger than the server holds.
        """
        self._held += size
        if so_far > self._max_body:
            raise HTTPException(413, f"the body is larger than {self._max_body} bytes")
        if self._held > self._max_bodies:
            raise HTTPException(429, "too many large requests at once", {"Retry-After": "1"})


class _Body:
    """The body of one request as it arrives."""

    def __init__(self, limits: RequestLimits, receive: Receive) -> None:
        self._limits, self._receive = limits, receive
        self.size = 0

    async def receive(self) -> Message:
        """The next part."""
        message = await self._receive()
        part = len(message.get("body", b""))
        self.size += part
        self._limits.take(part, self.size)
        return message
