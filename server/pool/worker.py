"""One model server: a process that the pool owns, or an endpoint that somebody else runs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import signal
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import httpx

from server.pool.replies import RequestError, read_reply

log = logging.getLogger(__name__)

State = Literal["starting", "live", "failed"]
HEALTH_SECONDS = 5.0
TAIL_LINES = 25
STOP_SECONDS = 5.0
PORT_TAKEN = f"[Errno {errno.EADDRINUSE}]"


@dataclass(frozen=True)
class Launch:
    """A command that starts a server at a port, and its environment."""

    command: list[str]
    env: dict[str, str]
    cores: list[int]
    port: int


@dataclass(frozen=True)
class Limits:
    """How long a server may take and how often it may die."""

    requests: int
    restarts: int
    start_timeout: float
    hang_timeout: float


@dataclass
class Worker:
    """A server and what is known of it.

    `launch` makes the command for a start; None: the server is somebody else's and is never started or ended here.
    `changed` is called whenever requests may move: the server became live, failed, or has room again.
    """

    name: str
    url: str
    model_name: str
    api_key: str | None
    limits: Limits
    log_path: Path | None
    launch: Callable[[], Launch] | None
    changed: Callable[[], None]
    state: State = "starting"
    error: str | None = None
    in_flight: int = 0
    restarts: int = 0
    paused_until: float = 0.0
    served: int = 0
    failures: int = 0
    process: asyncio.subprocess.Process | None = None
    _client: httpx.AsyncClient | None = None
    _idle: list[httpx.AsyncClient] = field(default_factory=list)
    _requests: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def has_room(self) -> bool:
        """Whether one more request may go there now."""
        return self.state == "live" and self.in_flight < self.limits.requests and time.monotonic() >= self.paused_until

    async def supervise(self) -> None:
        """Start the server, watch it, restart it when it dies, until cancelled or failed for good."""
        try:
            while True:
                reason = await self._start()
                if self.state == "failed":
                    return
                reason = reason or await self._watch()
                self._leave_live(reason)
                await self._end_process()
                if self.restarts >= self.limits.restarts:
                    self._fail(f"{reason}; it was restarted {self.restarts} times, as workers.restarts allows")
                    return
                self.restarts += 1
                log.warning("%s: %s; restart %d of %d", self.name, reason, self.restarts, self.limits.restarts)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            log.exception("%s: supervision failed", self.name)
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            await self._end_process()
            await self._disconnect()

    async def post(self, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send one request; the caller has counted it in `in_flight`.

        Raises:
            RequestError: there is no good answer.
        """
        task = asyncio.ensure_future(self._post(path, body, timeout))
        self._requests.add(task)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # the server went away, not the caller
                raise RequestError("the server ended before it answered") from None
            task.cancel()
            raise
        finally:
            self._requests.discard(task)

    async def _post(self, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        # A client a request in flight: the connections of one client look at each other for every request.
        client = self._idle.pop() if self._idle else self._connection()
        try:
            async with asyncio.timeout(timeout):
                response = await client.post(path, json=body)
        except TimeoutError:
            await client.aclose()
            raise RequestError(f"no answer within {timeout:g} s") from None
        except httpx.HTTPError as error:
            await client.aclose()
            raise RequestError(f"{type(error).__name__}: {str(error) or 'the connection broke'}") from None
        except asyncio.CancelledError:
            await client.aclose()
            raise
        self._idle.append(client)
        return read_reply(response)

    async def _start(self) -> str:
        """Start the process, if the server is ours, and wait for its health.

        Returns a reason where it was killed meanwhile, or lost its port to another program: the next start may do
        better. What ends by itself would end again.
        """
        self.state = "starting"
        started = time.monotonic()
        if self.launch is not None:
            launch = self.launch()
            self.url = f"http://127.0.0.1:{launch.port}"
            assert self.log_path is not None
            self.log_path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.log_path, "ab") as output:
                self.process = await asyncio.create_subprocess_exec(
                    *launch.command,
                    env=launch.env,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    cwd="/",
                    start_new_session=True,
                )
            if launch.cores:
                os.sched_setaffinity(self.process.pid, launch.cores)
            log.info("%s: process %d at %s", self.name, self.process.pid, self.url)
        await self._connect()
        deadline = started + self.limits.start_timeout
        reason = "it did not answer"
        while time.monotonic() < deadline:
            if self.process is not None and self.process.returncode is not None:
                reason = f"it ended while it started ({_exit_words(self.process.returncode)})"
                if self.process.returncode < 0 or PORT_TAKEN in self.log_tail():
                    return reason
                self._fail(reason)
                return ""
            reason = await self._health()
            if not reason:
                reason = await self._check_model()
                if reason:
                    self._fail(reason)
                    return ""
                self.state = "live"
                log.info("%s: live after %.1f s", self.name, time.monotonic() - started)
                self.changed()
                return ""
            await asyncio.sleep(0.25 if self.launch is not None else 1.0)
        self._fail(f"it was not healthy within {self.limits.start_timeout:g} s (workers.start_timeout): {reason}")
        return ""

    async def _watch(self) -> str:
        """Return the reason as soon as the server has died or hangs."""
        exited = asyncio.ensure_future(self.process.wait()) if self.process is not None else None
        healthy = time.monotonic()
        try:
            while True:
                if exited is not None:
                    done, _ = await asyncio.wait({exited}, timeout=HEALTH_SECONDS)
                    if done:
                        return f"it died ({_exit_words(exited.result())})"
                else:
                    await asyncio.sleep(HEALTH_SECONDS)
                reason = await self._health()
                if not reason:
                    healthy = time.monotonic()
                elif time.monotonic() - healthy >= self.limits.hang_timeout:
                    return f"it hangs: {reason} for {self.limits.hang_timeout:g} s (workers.hang_timeout)"
        finally:
            if exited is not None:
                exited.cancel()

    async def _connect(self) -> None:
        await self._disconnect()
        self._client = self._connection()

    async def _disconnect(self) -> None:
        clients, self._idle = [*self._idle, self._client], []
        self._client = None
        for client in clients:
            if client is not None:
                await client.aclose()

    def _connection(self) -> httpx.AsyncClient:
        """A client for one request at a time."""
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.api_key}"} if self.api_key else {},
            timeout=httpx.Timeout(None, connect=30.0),
            # vLLM closes connections that were idle for 5 s; one that is closing loses the request that it is given.
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=3.0),
            verify=_tls(),
            trust_env=self.launch is None,
        )

    async def _health(self) -> str:
        """An empty string for a healthy server, else what is wrong."""
        assert self._client is not None
        try:
            response = await self._client.get("/health", timeout=HEALTH_SECONDS)
        except httpx.HTTPError as error:
            return f"{type(error).__name__} at /health"
        # A gateway in front of foreign servers may not know /health; it answers at least.
        healthy = response.status_code == 200 or (self.launch is None and response.status_code in (401, 403, 404, 405))
        return "" if healthy else f"status {response.status_code} at /health"

    async def _check_model(self) -> str:
        """An empty string where the server has the model, else what it has."""
        assert self._client is not None
        try:
            response = await self._client.get("/v1/models", timeout=30.0)
            names = [str(entry["id"]) for entry in response.json()["data"]]
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return (
                f"{self.url}/v1/models gives no list of models (is it an OpenAI-compatible server? is the key right?)"
            )
        if self.model_name in names:
            return ""
        return f"{self.url} serves {', '.join(names) or 'no model'}, not {self.model_name}; see workers.model_name"

    def _leave_live(self, reason: str) -> None:
        self.state = "starting"
        self.error = reason
        for task in list(self._requests):
            task.cancel()
        self.changed()

    def _fail(self, reason: str) -> None:
        self.state = "failed"
        self.error = f"{self.name}: {reason}" + self.log_tail()
        log.error("%s", self.error)
        self.changed()

    def log_tail(self) -> str:
        """The end of the server's own log, as part of an error."""
        if self.log_path is None or not self.log_path.exists():
            return ""
        with open(self.log_path, "rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
            lines = file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join([f"\nThe end of {self.log_path}:", *(f"    {line}" for line in lines)])

    async def _end_process(self) -> None:
        """End the server's whole process group: asked first, then without asking. Foreign servers are left alone."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                pass
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@cache
def _tls() -> ssl.SSLContext:
    """One context for all connections: each takes 20 ms to make."""
    return httpx.create_ssl_context()


def _exit_words(status: int) -> str:
    if status < 0:
        return f"signal {signal.Signals(-status).name}"
    return f"exit status {status}"
