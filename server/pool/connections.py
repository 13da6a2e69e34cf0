"""HTTP to one model server: requests, the classification of responses, and the files that the server wrote."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import math
import resource
import secrets
import ssl
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import httpx

from emoprobe.results import atomic
from emoprobe.results.activation_folder import METADATA, TENSORS
from emoprobe.results.layout import ACTIVATION_FILES
from server.guard import CHALLENGE, PROOF, proof


class RequestError(Exception):
    """An attempt that failed.

    `permanent`: another server would refuse it as well. `pause`: seconds to leave the server be. `broken`: it was the
    connection that failed. `spared`: the attempt costs the request none of its attempts, as the server was taken away
    or was busy with others. `status`: that of the response, where there was one. `timed_out`: none came in time.
    `advice`: what to do, where the status alone does not tell. `of_account`: every other request to the server would be
    refused as well. `billed`: the server may have computed an answer.
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
        advice: str | None = None,
        of_account: bool = False,
        billed: bool = False,
    ) -> None:
        super().__init__(message)
        self.permanent, self.pause, self.broken, self.spared = permanent, pause, broken, spared
        self.status, self.timed_out = status, timed_out
        self.advice, self.of_account, self.billed = advice, of_account, billed


def read_reply(response: httpx.Response) -> dict[str, Any]:
    """The JSON object that a server answers.

    Raises:
        RequestError: it answers something else.
    """
    status = response.status_code
    if status in (429, 503):
        raise RequestError(f"status {status}: {message_of(response)}", pause=pause_of(response), status=status)
    if status != 200:
        # A key or a model that is not there is this server's mistake, other refusals are the request's.
        refused = 400 <= status < 500 and status not in (401, 403, 404, 408, 409, 425)
        raise RequestError(f"status {status}: {message_of(response)}", permanent=refused, status=status)
    try:
        answer = response.json()
    except (ValueError, RecursionError):
        raise RequestError(f"the answer is no JSON: {response.text[:200]!r}", billed=True) from None
    if not isinstance(answer, dict):
        raise RequestError(f"the answer is no JSON object: {response.text[:200]!r}", billed=True)
    return answer


def pause_of(response: httpx.Response, unnamed: float = 1.0) -> float:
    """Return the pause that a server asks for with `Retry-After`, in seconds: a number of them, or a date.

    Args:
        response: the server's; a date is compared with that of the response, by the same clock.
        unnamed: the pause where the server names none.
    """
    asked = response.headers.get("retry-after", "").strip()
    try:
        return max(0.0, float(asked)) if asked and math.isfinite(float(asked)) else unnamed
    except ValueError:
        until, now = _date(asked), _date(response.headers.get("date", ""))
    return unnamed if until is None else max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def message_of(response: httpx.Response) -> str:
    """Return a server's message about its refusal, in one line."""
    try:
        error = response.json().get("error", response.json())
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError):
        text = response.text
    return " ".join(str(text).split())[:500]


FILES = 1 << 16  # that a process may have open, where the system lets it: each request in flight is one or more


def allow_open_files() -> None:
    """Raise this process' limit of open files, often 1,024, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(hard, FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


HEALTH_SECONDS = 5.0
MODELS_SECONDS = 30.0
# A gateway in front of a foreign server may not know /health; with one of these it answers at least.
GATEWAY_ANSWERS = (401, 403, 404, 405)
PASSING = (408, 425, 429)  # of statuses below 500, those that another request may not get


class Connections:
    """The connections to one server.

    Args:
        url: base URL, without `/v1`.
        api_key: sent with every request, where there is one.
        foreign: the server is somebody else's, so that proxies of the environment hold.
        nonce: what the server has to prove that it knows, see `server.guard`; empty where its address is certain.
    """

    def __init__(self, url: str, api_key: str | None, foreign: bool, nonce: str = "") -> None:
        self.url = url
        self.listening = True
        """Whether the last look at its health found it at its port, whatever state it was in."""
        self._api_key, self._foreign, self._nonce = api_key, foreign, nonce
        self._idle: list[httpx.AsyncClient] = []
        self._control = self._new()

    async def close(self) -> None:
        """Close every connection that is not in use."""
        clients, self._idle = [*self._idle, self._control], []
        for client in clients:
            await client.aclose()

    async def post(self, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send one request; return the JSON object that comes back.

        Raises:
            RequestError: there is no good answer.
        """
        # A client a request in flight: the connections of one client look at each other for every request.
        client = self._idle.pop() if self._idle else self._new()
        try:
            async with asyncio.timeout(timeout):
                response = await client.post(path, json=body)
        except TimeoutError:
            await client.aclose()
            raise RequestError(f"no answer within {timeout:g} s", timed_out=True, billed=True) from None
        except httpx.HTTPError as error:
            await client.aclose()
            sent = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
            message = f"{type(error).__name__}: {str(error) or 'the connection broke'}"
            raise RequestError(message, broken=True, billed=sent) from None
        except asyncio.CancelledError:
            await client.aclose()
            raise
        self._idle.append(client)
        return self.read(response)

    def read(self, response: httpx.Response) -> dict[str, Any]:
        """Return the JSON object that the server answers; raises as `read_reply`."""
        return read_reply(response)

    async def get(self, path: str) -> bytes:
        """The body that is at a path.

        Raises:
            RequestError: there is none, or the connection broke.
        """
        return (await self._file("GET", path)).content

    async def delete(self, path: str) -> None:
        """Have what is at a path deleted.

        Raises:
            RequestError: it was not.
        """
        await self._file("DELETE", path)

    async def _file(self, method: str, path: str) -> httpx.Response:
        async with self._new() as client:
            try:
                response = await client.request(method, path)
            except httpx.HTTPError as error:
                message = str(error) or "the connection broke"
                raise RequestError(f"{method} {path}: {type(error).__name__}: {message}") from None
        if response.status_code != 200:
            raise RequestError(f"{method} {path}: status {response.status_code}: {response.text[:200]}")
        return response

    async def health(self) -> str:
        """An empty string for a healthy server, else what is wrong."""
        challenge = secrets.token_hex(16) if self._nonce else ""
        request = self._control.build_request("GET", "/health", timeout=HEALTH_SECONDS)
        if challenge:  # the key is for nobody who has not proved to have it
            request.headers[CHALLENGE] = challenge
            request.headers.pop("Authorization", None)
        try:
            response = await self._control.send(request)
        except httpx.HTTPError as error:
            self.listening = not isinstance(error, httpx.ConnectError)
            return f"{type(error).__name__} at /health"
        self.listening = not challenge or hmac.compare_digest(
            response.headers.get(PROOF, ""), proof(self._api_key or "", self._nonce, challenge)
        )
        if not self.listening:
            return f"another server answers at {self.url}"
        healthy = response.status_code == 200 or (self._foreign and response.status_code in GATEWAY_ANSWERS)
        return "" if healthy else f"status {response.status_code} at /health"

    async def check_model(self, name: str) -> str:
        """An empty string where the server has the model, else what it has.

        Raises:
            RequestError: it does not tell for the moment, as one that is busy or still loads behind a gateway.
        """
        try:
            response = await self._control.get("/v1/models", timeout=MODELS_SECONDS)
        except httpx.HTTPError as error:
            raise RequestError(f"{type(error).__name__} at /v1/models") from None
        if response.status_code in PASSING or response.status_code >= 500:
            raise RequestError(f"status {response.status_code} at /v1/models")
        try:
            names = [str(entry["id"]) for entry in response.json()["data"]]
        except (ValueError, KeyError, TypeError):
            return (
                f"{self.url}/v1/models gives no list of models (is it an OpenAI-compatible server? is the key right?)"
            )
        if name in names:
            return ""
        return f"{self.url} serves {', '.join(names) or 'no model'}, not {name}; see workers.model_name"

    def _new(self) -> httpx.AsyncClient:
        """A client for one request at a time."""
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else {},
            timeout=httpx.Timeout(None, connect=30.0),
            # vLLM closes connections that were idle for 5 s; one that is closing loses the request that it is given.
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=3.0),
            verify=_tls(),
            # A tunnel ends on this machine, where no proxy is wanted.
            trust_env=self._foreign and urlsplit(self.url).hostname not in ("127.0.0.1", "::1", "localhost"),
        )


@cache
def _tls() -> ssl.SSLContext:
    """One context for all connections: each takes 20 ms to make."""
    return httpx.create_ssl_context()


class Files(Protocol):
    """A server whose files can be fetched."""

    async def get(self, path: str) -> bytes:
        """The content at a path.

        Raises:
            RequestError: there is none.
        """
        ...

    async def delete(self, path: str) -> None:
        """Delete what is at a path.

        Raises:
            RequestError: it was not.
        """
        ...


async def fetch_from_server(folder: Path, save_dir: str, worker: Files, answer: dict[str, Any]) -> None:
    """Fetch a folder, check it, and put it into its place; the server's copy is deleted then.

    Args:
        folder: its place here.
        save_dir: the folder that the server was asked to write, relative to its root.
        worker: the server.
        answer: its answer, whose breadcrumb has the hash of the tensors.

    Raises:
        RequestError: it did not come, or not whole.
        OSError: it could not be written.
    """
    path = _path(save_dir)
    tensors = await worker.get(f"{path}/{TENSORS}")
    metadata = await worker.get(f"{path}/{METADATA}")
    digest = hashlib.sha256(tensors).hexdigest()
    # Another request to the same folder may have replaced it meanwhile.
    if digest != (answer.get("ndif") or {}).get("sha256") or digest != _described(metadata):
        raise RequestError(f"the activations of {save_dir} did not come as they were written: their hash differs")
    await asyncio.to_thread(_write, folder, tensors, metadata)
    await delete_at_server(save_dir, worker)


def _described(metadata: bytes) -> object:
    """Return the hash of the tensors that some metadata describe; None where they are no metadata."""
    try:
        return json.loads(metadata)["sha256"]
    except (ValueError, KeyError, TypeError):
        return None


async def delete_at_server(save_dir: str, worker: Files) -> None:
    """Delete the server's copy of a folder that is somewhere else by now."""
    # What cannot be deleted now is written over by the next capture, or goes with the deployment.
    with contextlib.suppress(RequestError):
        await worker.delete(_path(save_dir))


def _path(save_dir: str) -> str:
    return f"/v1/activations/{quote(save_dir)}"


def _write(folder: Path, tensors: bytes, metadata: bytes) -> None:
    with atomic.directory(folder, ACTIVATION_FILES) as temporary:
        (temporary / TENSORS).write_bytes(tensors)
        (temporary / METADATA).write_bytes(metadata)
