"""What stands between the network and the routes: the API key, the size of a body, the number of requests."""

from __future__ import annotations

import hmac
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.answers import error_body
from server.responses import AsciiJSON

OPEN_PATHS = frozenset({"/health"})


class Limits:
    """ASGI middleware. Without a key, everybody who reaches the port is let in."""

    def __init__(self, app: ASGIApp, api_key: str | None, max_body: int, max_requests: int) -> None:
        self._app = app
        self._key = None if api_key is None else api_key.encode()
        self._max_body, self._max_requests = max_body, max_requests
        self._running = 0

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
            try:
                await self._app(scope, self._counted(receive), send)
            finally:
                self._running -= 1
            return
        await refusal(scope, receive, send)

    def _authorised(self, scope: Scope) -> bool:
        given: Any = dict(scope["headers"]).get(b"authorization", b"")
        kind, _, key = given.partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._key or b"")

    def _counted(self, receive: Receive) -> Receive:
        size = 0

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._max_body:
                raise HTTPException(413, f"the body is larger than {self._max_body} bytes")
            return message

        return counted
