"""One model server under supervision: started, watched, restarted, and given requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from server.pool.connections import Connections
from server.pool.launcher import Exit, Launcher, LaunchError
from server.pool.phases import last_line, phase_of
from server.pool.replies import RequestError

log = logging.getLogger(__name__)

State = Literal["waiting", "starting", "live", "failed"]
TAIL_LINES = 25
STARTING_LINES = 200


@dataclass(frozen=True)
class WorkerLimits:
    """How much a server is given, how often it may die, and for how many seconds it may start or hang."""

    requests: int
    restarts: int
    start_timeout: float
    hang_timeout: float
    health_interval: float = 5.0


class Worker:
    """A server and what is known of it.

    Its state is `waiting` until its fleet's turn comes, `starting` until it is healthy, then `live`; `failed` is for
    good.

    Args:
        name: what results call it.
        model_name: what the server calls the model.
        api_key: its key, if it wants one.
        limits: see there.
        launcher: brings it up.
        changed: is called whenever requests may move: the server became live, failed, or has room again.
        hardware: what it runs on, as far as that is known.
    """

    def __init__(
        self,
        name: str,
        model_name: str,
        api_key: str | None,
        limits: WorkerLimits,
        launcher: Launcher,
        changed: Callable[[], None],
        hardware: str | None = None,
    ) -> None:
        self.hardware = hardware
        self.name, self.model_name, self.limits, self.launcher = name, model_name, limits, launcher
        self.state: State = "waiting"
        self.url = ""
        self.error: str | None = None
        self.in_flight = self.restarts = self.served = self.failures = 0
        self.paused_until = 0.0
        self._api_key, self._changed = api_key, changed
        self._connections: Connections | None = None
        self._requests: set[asyncio.Task[Any]] = set()
        self._since = 0.0

    @property
    def has_room(self) -> bool:
        """Whether one more request may go there now."""
        return self.state == "live" and self.in_flight < self.limits.requests and time.monotonic() >= self.paused_until

    async def supervise(self) -> None:
        """Start the server, watch it, restart it when it dies, until cancelled or failed for good."""
        try:
            await self._keep_up()
        except asyncio.CancelledError:
            raise
        except LaunchError as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("%s: supervision failed", self.name)
            self._fail(f"{type(error).__name__}: {error}")
        finally:
            if self.state != "failed":
                self.state = "waiting"
            await self.launcher.stop()
            await self._disconnect()

    async def _keep_up(self) -> None:
        restarts = 0
        while True:
            reason = await self._start()
            if self.state == "failed":
                return
            reason = reason or await self._watch()
            self._leave_live(reason)
            await self.launcher.stop()
            if restarts >= self.limits.restarts:
                self._fail(f"{reason}; it was restarted {restarts} times, as workers.restarts allows")
                return
            restarts += 1
            self.restarts += 1
            log.warning("%s: %s; restart %d of %d", self.name, reason, restarts, self.limits.restarts)

    async def post(self, path: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send one request; the caller has counted it in `in_flight`.

        Raises:
            RequestError: there is no good answer.
        """
        assert self._connections is not None
        task = asyncio.ensure_future(self._connections.post(path, body, timeout))
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

    async def get(self, path: str) -> bytes:
        """The content at a path, such as a file that the server wrote.

        Raises:
            RequestError: there is none.
        """
        if self._connections is None:
            raise RequestError("the server ended before its files were fetched")
        return await self._connections.get(path)

    async def delete(self, path: str) -> None:
        """Have the server delete what is at a path.

        Raises:
            RequestError: it did not.
        """
        if self._connections is not None:
            await self._connections.delete(path)

    async def _start(self) -> str:
        """Start the server and wait for its health.

        Returns a reason where it ended meanwhile in a way that the next start may do better; what ends by itself would
        end again.
        """
        self.state, self._since = "starting", time.monotonic()
        self.url = await self.launcher.start()
        started = self._since = time.monotonic()
        await self._disconnect()
        connections = self._connections = Connections(self.url, self._api_key, self.launcher.foreign)
        reason = "it did not answer"
        while time.monotonic() - started < self.limits.start_timeout:
            ended = self.launcher.exited()
            if ended is not None:
                reason = f"it ended while it started ({ended.reason})"
                if ended.again:
                    return reason
                self._fail(reason)
                return ""
            reason = await connections.health()
            if not reason:
                await self._go_live(connections)
                return ""
            await asyncio.sleep(1.0 if self.launcher.foreign else 0.25)
        self._fail(f"it was not healthy within {self.limits.start_timeout:g} s (workers.start_timeout): {reason}")
        return ""

    async def _go_live(self, connections: Connections) -> None:
        """Take requests, unless the server has another model."""
        wrong = await connections.check_model(self.model_name)
        if wrong:
            self._fail(wrong)
            return
        self.state = "live"
        log.info("%s: live after %.1f s", self.name, time.monotonic() - self._since)
        self._changed()

    async def _watch(self) -> str:
        """Return the reason as soon as the server has died or hangs."""
        assert self._connections is not None
        exited: asyncio.Task[Exit] = asyncio.ensure_future(self.launcher.wait())
        healthy = time.monotonic()
        try:
            while True:
                done, _ = await asyncio.wait({exited}, timeout=self.limits.health_interval)
                if done:
                    return f"it died ({exited.result().reason})"
                reason = await self._connections.health()
                if not reason:
                    healthy = time.monotonic()
                elif time.monotonic() - healthy >= self.limits.hang_timeout:
                    return f"it hangs: {reason} for {self.limits.hang_timeout:g} s (workers.hang_timeout)"
        finally:
            exited.cancel()

    async def _disconnect(self) -> None:
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.close()

    def _leave_live(self, reason: str) -> None:
        self.state = "starting"
        self.error = reason
        for task in list(self._requests):
            task.cancel()
        self._changed()

    def _fail(self, reason: str) -> None:
        self.state = "failed"
        lines = self.launcher.log_lines(TAIL_LINES)
        tail = "\n".join([f"\nThe end of {self.launcher.log_name()}:", *(f"    {line}" for line in lines)])
        self.error = f"{self.name}: {reason}" + (tail if lines else "")
        log.error("%s", self.error)
        self._changed()

    def phase(self) -> str:
        """What it does now, in words for a person."""
        if self.state == "starting":
            words = [f"starting for {time.monotonic() - self._since:.0f} s"]
            if not self.launcher.foreign:
                words.append(phase_of(self.launcher.log_lines(STARTING_LINES)))
            return ", ".join(words)
        if self.state == "live":
            paused = time.monotonic() < self.paused_until
            return "paused, as it asked for" if paused else "at work" if self.in_flight else "idle"
        return "waits for its turn" if self.state == "waiting" else "failed"

    def log_line(self) -> str:
        """The last line of its log, shortened; empty once it is live, when its log says little."""
        return "" if self.state == "live" else last_line(self.launcher.log_lines(STARTING_LINES))
