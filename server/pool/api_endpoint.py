"""Connections to an OpenAI-compatible API that somebody else runs, and the meaning of its refusals."""

from __future__ import annotations

from typing import Any

import httpx

from server.pool.connections import Connections, RequestError, message_of, pause_of
from server.pool.launcher import Endpoint

FIELDS = (
    "change what is asked: leave out or replace what the API does not know with api_request (of generation, or of the "
    "judge), such as seed: null, or change the prompt or max_tokens, then run again."
)
# Status → what to do. With those of ACCOUNT, every other request would be refused as well.
ADVICE = {
    400: FIELDS,
    401: "set api_key_env (of workers, or of the judge) to the variable with the key of the API, then run again.",
    402: "add credit to the account of the key, then run again.",
    403: "use a key that may do this, or change the prompt that was refused (see the message), then run again.",
    404: "set model.source (the model of a judge) to the API's name of a model, and endpoints to the API's base URL, "
    "then run again.",
    413: FIELDS,
    422: FIELDS,
    429: "add credit to the account of the key, or wait until its quota is renewed, then run again.",
}
ACCOUNT = (401, 402, 404, 429)
PERMANENT = frozenset({*range(300, 500)} - {408, 409, 425, 429})
# Codes of a 429 that no pause changes.
NO_QUOTA = ("insufficient_quota", "billing_hard_limit_reached")
UNNAMED_PAUSE = 15.0  # seconds after a 429 without Retry-After; quotas are per minute, mostly


class ApiEndpoint(Endpoint):
    """An API: only its URL is known. One without a path has the API below `/v1`."""

    async def start(self) -> str:
        """Return the URL below which `/chat/completions` is."""
        return self.url if httpx.URL(self.url).path.strip("/") else f"{self.url}/v1"


class ApiConnections(Connections):
    """The connections to an API, which has no route for its health and need not list its models."""

    async def health(self) -> str:
        """Return an empty string: only answers tell how an API is."""
        return ""

    async def check_model(self, name: str) -> str:
        """Return an empty string: the first answer tells whether the API has the model."""
        return ""

    def read(self, response: httpx.Response) -> dict[str, Any]:
        """Return the JSON object that an API answers.

        Raises:
            RequestError: it answers something else, or refuses; with what to do where another call would fail too.
        """
        status = response.status_code
        if status == 429 and not any(code in response.text for code in NO_QUOTA):
            pause = pause_of(response, UNNAMED_PAUSE)
            raise RequestError(f"status 429: {message_of(response)}", pause=pause, status=status)
        if status in PERMANENT or status == 429:
            raise RequestError(
                f"status {status}: {message_of(response)}",
                permanent=True,
                status=status,
                advice=ADVICE.get(status, ADVICE[404]),
                of_account=status in ACCOUNT,
            )
        kind = response.headers.get("content-type", "")
        if status == 200 and "json" not in kind.lower():
            raise RequestError(f"the answer is {kind or 'of no type'}, no JSON: {response.text[:200]!r}", billed=True)
        return super().read(response)
