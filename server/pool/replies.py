"""What a server's reply means: an answer, a failure that another server may not have, or a refusal."""

from __future__ import annotations

from typing import Any

import httpx


class RequestError(Exception):
    """An attempt that failed.

    `permanent`: another server would refuse it as well. `pause`: seconds to leave the server be. `broken`: it was the
    connection that failed. `spared`: the server was taken away, which costs the request none of its attempts.
    `status`: that of the response, where there was one. `timed_out`: none came in time.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        pause: float = 0.0,
        broken: bool = False,
        spared: bool = False,
        status: int | None = None,
        timed_out: bool = False,
    ) -> None:
        super().__init__(message)
        self.permanent, self.pause, self.broken, self.spared = permanent, pause, broken, spared
        self.status, self.timed_out = status, timed_out


def read_reply(response: httpx.Response) -> dict[str, Any]:
    """The JSON object that a server answers.

    Raises:
        RequestError: it answers something else.
    """
    status = response.status_code
    if status in (429, 503):
        pause = _seconds(response.headers.get("retry-after"))
        raise RequestError(f"status {status}: {_message(response)}", pause=pause, status=status)
    if status != 200:
        # A key or a model that is not there is this server's mistake, other refusals are the request's.
        refused = 400 <= status < 500 and status not in (401, 403, 404, 408, 409, 425)
        raise RequestError(f"status {status}: {_message(response)}", permanent=refused, status=status)
    try:
        answer = response.json()
    except ValueError:
        raise RequestError(f"the answer is no JSON: {response.text[:200]!r}") from None
    if not isinstance(answer, dict):
        raise RequestError(f"the answer is no JSON object: {response.text[:200]!r}")
    return answer


def _seconds(retry_after: str | None) -> float:
    """The pause that a server asked for, in seconds, at most a minute."""
    try:
        return min(60.0, max(0.0, float(retry_after or 1.0)))
    except ValueError:
        return 1.0


def _message(response: httpx.Response) -> str:
    """What a server says of its refusal, in one line."""
    try:
        error = response.json().get("error", response.json())
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(str(text).split())[:500]
