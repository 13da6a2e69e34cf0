"""What stands before a server that others on the network can reach: it proves who it is, and lets in who has the key.

A pool that finds an address in a file cannot know whether its server still listens there, or somebody else's. So it
sends a challenge to `/health` and no key; only the server that was started with this key and this nonce can answer it.
All other paths demand the key: vLLM itself guards only those under `/v1`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

KEY_VARIABLE = "EMOPROBE_API_KEY"
NONCE_VARIABLE = "EMOPROBE_NONCE"
CHALLENGE = "x-emoprobe-challenge"
PROOF = "x-emoprobe-proof"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def proof(key: str, nonce: str, challenge: str) -> str:
    """Return a server's answer to a challenge, from key and nonce: HMAC-SHA256, in hexadecimal."""
    return hmac.new(key.encode(), f"{nonce} {challenge}".encode(), hashlib.sha256).hexdigest()


class Guard:
    """ASGI middleware; key and nonce come from the environment, where no list of processes shows them.

    Raises:
        KeyError: they are not there.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._key, self._nonce = os.environ[KEY_VARIABLE], os.environ[NONCE_VARIABLE]

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Prove, refuse, or let through."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if scope["type"] == "http" and scope["path"] == "/health":
            await self._app(scope, receive, self._proving(headers.get(CHALLENGE.encode(), b"").decode("latin-1"), send))
            return
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._key.encode()):
            await self._app(scope, receive, send)
            return
        await _refuse(scope["type"], send)

    def _proving(self, challenge: str, send: Send) -> Send:
        async def proved(message: Message) -> None:
            if message["type"] == "http.response.start" and challenge:
                answer = (PROOF.encode(), proof(self._key, self._nonce, challenge).encode())
                message = {**message, "headers": [*message.get("headers", []), answer]}
            await send(message)

        return proved


async def _refuse(kind: str, send: Send) -> None:
    if kind != "http":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = json.dumps({"error": {"message": "the API key is missing or wrong", "code": 401}}).encode()
    headers = [(b"content-type", b"application/json"), (b"www-authenticate", b"Bearer")]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": body})
