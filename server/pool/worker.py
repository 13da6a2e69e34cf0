"""One model server under supervision: started, watched, restarted, and given requests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from server.pool.connections import Connections, RequestError
from server.pool.launcher import EndedError, Exit, Launcher, LaunchError
from server.pool.server_log import last_line, phase_of

log = logging.getLogger(__name__)

State = Literal["waiting", "starting", "live", "failed"]
TAIL_LINES = 25
RECHECK_SECONDS = 1.0
STARTING_LINES = 200


@dataclass(frozen=True)
class WorkerLimits:
    """Limits of a server: requests, restarts, and seconds to start or to hang."""

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
        hardware: what it runs on, as far as that is known before it stands.
        connect: makes the connections to it, from its URL, its key, whether it is somebody else's, and its nonce.
        gate: held while the server starts. Servers that share a GPU have one gate: vLLM counts the memory that another
            process takes meanwhile as its own.
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
        gate: asyncio.Lock | None = None,
        connect: Callable[[str, str | None, bool, str], Connections] = Connections,
    ) -> None:
        self.hardware, self._gate, self._connect = hardware, gate, connect
        self.name, self.model_name, self.limits, self.launcher = name, model_name, limits, launcher
        self.state: State = "waiting"
        self.url = ""
        self.error: str | None = None
        self.in_flight = self.restarts = self.served = self.failures = 0
        self._window = limits.requests
        self.paused_until = 0.0
        self._api_key, self._changed = api_key, changed
        self._connections: Connections | None = None
        self._requests: set[asyncio.Task[Any]] = set()
        self._since = 0.0
        self._ended: Exit | None = None
        self._doubt = asyncio.Event()
        self._doubters: list[asyncio.Future[bool]] = []

    @property
    def has_room(self) -> bool:
        """Whether one more request may go there now."""
        return self.state == "live" and self.in_flight < self._window and self.pause == 0.0

    @property
    def pause(self) -> float:
        """Seconds for which it asked to be left alone, from now on."""
        return max(0.0, self.paused_until - time.monotonic())

    def leave_alone(self, seconds: float) -> None:
        """Send nothing for a while, as it asked for, and then one request at a time until it answers again."""
        if seconds > 0:
            self.paused_until, self._window = max(self.paused_until, time.monotonic() + seconds), 1

    def note_answer(self) -> None:
        """Count an answer; after a pause, each makes room for one more request at a time."""
        self.served += 1
        self._window = min(self._window + 1, self.limits.requests)

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
            self._settle(taken=False)
            self._changed()
            await self.launcher.stop()
            await self._disconnect()

    async def _keep_up(self) -> None:
        restarts = 0
        while True:
            async with self._gate or contextlib.nullcontext():
                ended = await self._start()
            if self.state == "failed":
                return
            ended = ended or await self._watch()
            self._leave_live(ended)
            await self.launcher.stop()
            if ended.counts and restarts >= self.limits.restarts:
                self._fail(f"{ended.reason}; it was restarted {restarts} times, as workers.restarts allows")
                return
            restarts += ended.counts
            self.restarts += 1
            counted = f"restart {restarts} of {self.limits.restarts}" if ended.counts else "started again at no cost"
            log.warning("%s: %s; %s", self.name, ended.reason, counted)

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
                spared = self._ended is not None and not self._ended.counts
                raise RequestError("the server ended before it answered", spared=spared) from None
            task.cancel()
            raise
        except RequestError as error:
            error.spared = error.broken and await self._was_taken()
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

    async def _was_taken(self) -> bool:
        """Look at once whether a broken connection was the end of a server that was taken away."""
        if self.launcher.foreign or self.state != "live":
            return self._ended is not None and not self._ended.counts
        doubter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._doubters.append(doubter)
        self._doubt.set()
        return await doubter

    async def _start(self) -> Exit | None:
        """Start the server and wait for its health.

        Returns how it ended where it did so meanwhile in a way that the next start may do better; what ends by itself
        would end again.
        """
        self.state, self._since, self._ended = "starting", time.monotonic(), None
        try:
            self.url = await self.launcher.start()
        except EndedError as error:
            return self._ended_at_start(error.ended)
        self.hardware = self.launcher.hardware or self.hardware
        started = self._since = time.monotonic()
        await self._disconnect()
        foreign = self.launcher.foreign
        connections = self._connections = self._connect(self.url, self._api_key, foreign, self.launcher.nonce)
        reason = "it did not answer"
        while time.monotonic() - started < self.limits.start_timeout:
            ended = self.launcher.exited()
            if ended is not None:
                return self._ended_at_start(ended)
            reason = await connections.health()
            if not reason:
                try:
                    wrong = await connections.check_model(self.model_name)
                except RequestError as error:
                    reason = str(error)
                else:
                    self._go_live(wrong)
                    return None
            await asyncio.sleep(1.0 if foreign else 0.25)
        self._fail(f"it was not healthy within {self.limits.start_timeout:g} s (workers.start_timeout): {reason}")
        return None

    def _ended_at_start(self, ended: Exit) -> Exit | None:
        """Handle an end before the server was live."""
        reason = f"it ended while it started ({ended.reason})"
        if ended.again:
            return replace(ended, reason=reason)
        self._fail(reason)
        return None

    def _go_live(self, wrong: str) -> None:
        """Take requests, unless something is wrong with the server, such as another model."""
        if wrong:
            self._fail(wrong)
            return
        self.state = "live"
        log.info("%s: live after %.1f s", self.name, time.monotonic() - self._since)
        self._changed()

    async def _watch(self) -> Exit:
        """Return how it ended as soon as the server has died or hangs."""
        assert self._connections is not None
        exited: asyncio.Task[Exit] = asyncio.ensure_future(self.launcher.wait())
        healthy, absent = time.monotonic(), False
        try:
            while True:
                await self._until_next_look(exited, RECHECK_SECONDS if absent else self.limits.health_interval)
                if exited.done():
                    return replace(exited.result(), reason=f"it died ({exited.result().reason})")
                reason = await self._connections.health()
                was_absent, absent = absent, not (self._connections.listening or self.launcher.foreign)
                if not reason:
                    healthy = time.monotonic()
                elif absent and was_absent:
                    return await self.launcher.lost(f"it is gone: {reason}", listening=False)
                elif time.monotonic() - healthy >= self.limits.hang_timeout:
                    words = f"it hangs: {reason} for {self.limits.hang_timeout:g} s (workers.hang_timeout)"
                    return await self.launcher.lost(words, listening=not absent)
                if not absent:
                    self._settle(taken=False)
        finally:
            exited.cancel()

    async def _until_next_look(self, exited: asyncio.Task[Exit], seconds: float) -> None:
        """Wait for a while, or until the server ends or a request doubts it."""
        doubt = asyncio.ensure_future(self._doubt.wait())
        try:
            await asyncio.wait({exited, doubt}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            doubt.cancel()
            self._doubt.clear()

    def _settle(self, *, taken: bool) -> None:
        """Tell the requests whose connection broke whether the server was taken away."""
        doubters, self._doubters = self._doubters, []
        for doubter in doubters:
            if not doubter.done():
                doubter.set_result(taken)

    async def _disconnect(self) -> None:
        connections, self._connections = self._connections, None
        if connections is not None:
            await connections.close()

    def _leave_live(self, ended: Exit) -> None:
        self.state, self.error, self._ended = "starting", ended.reason, ended
        self._settle(taken=not ended.counts)
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
        """Return the worker's activity, for messages."""
        if self.state == "starting":
            seconds = f"{time.monotonic() - self._since:.0f} s"
            if self.launcher.waits():
                return f"{self.launcher.waits()}, {seconds}"
            words = [f"starting for {seconds}"]
            if not self.launcher.foreign:
                words.append(phase_of(self.launcher.log_lines(STARTING_LINES)))
            return ", ".join(words)
        if self.state == "live":
            return "paused, as it asked for" if self.pause else "at work" if self.in_flight else "idle"
        return "waits for its turn" if self.state == "waiting" else "failed"

    def log_line(self) -> str:
        """The last line of its log, shortened; empty once it is live, when its log says little."""
        return "" if self.state == "live" else last_line(self.launcher.log_lines(STARTING_LINES))
