"""Servers of one model, and how requests are spread over them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from emoprobe.conversations.responses import Delivery, OtherPromptError
from emoprobe.results.trajectory import Attempt
from server.pool import advice
from server.pool.address import FleetStatus, WorkerStatus
from server.pool.connections import RequestError
from server.pool.launch import Kind
from server.pool.turns import Turns
from server.pool.worker import Worker

log = logging.getLogger(__name__)

BACKOFF_SECONDS = 0.5
TOO_MANY = 429  # the status of a request that came too soon


class FleetDownError(Exception):
    """No worker is left; the message says why, with the end of the server's log."""


class UnansweredError(Exception):
    """A request without an answer, though there are servers; the message says why.

    `attempts` are the tries that were made.
    """

    def __init__(self, message: str, attempts: list[Attempt]) -> None:
        super().__init__(message)
        self.attempts = attempts


class GaveUpError(UnansweredError):
    """A request that no attempt answered."""


class RefusedError(UnansweredError):
    """A request that no server would accept."""


@dataclass(frozen=True)
class ServerDemand:
    """A request to a fleet.

    `index` is the pair's, which picks the worker; `path` the route, such as `/v1/chat/completions`; `timeout` the
    seconds for one attempt. `check` returns an answer that is good and raises ValueError for one that is not. `fetch`
    gets from the worker what an answer only names; where that fails, the attempt has failed. `hold` is entered for each
    attempt before a worker is taken, and waits until it may be made. `send` makes the call; None: a plain
    `Worker.post`.
    """

    index: int
    path: str
    body: dict[str, Any]
    timeout: float
    check: Callable[[Any], dict[str, Any]]
    fetch: Callable[[Worker, dict[str, Any]], Awaitable[None]] | None = None
    hold: Callable[[], AbstractAsyncContextManager[None]] = contextlib.nullcontext
    send: Callable[[Worker], Awaitable[Any]] | None = None

    async def answer(self, worker: Worker) -> Any:
        """Make the call.

        Raises:
            RequestError: there is no good answer.
        """
        return await (self.send(worker) if self.send else worker.post(self.path, self.body, self.timeout))


class Fleet:
    """Spreads requests round robin over live workers and gives a failed one to the next.

    A request has a home: the live worker at (pair index modulo their number). It goes elsewhere only where the home
    has no room, or has failed it before.

    Args:
        kind: what the servers are.
        model: what they call their model.
        attempts: tries of one request.
        turns: with which fleets they take turns; None: somebody else runs them.
        elsewhere: they take turns, but on other machines than this one.
    """

    def __init__(self, kind: Kind, model: str, attempts: int, turns: Turns | None, *, elsewhere: bool = False) -> None:
        self.kind, self.model, self.workers = kind, model, list[Worker]()
        self.experiments: set[str] = set()
        self._attempts, self._turns, self._elsewhere = attempts, turns, elsewhere
        self._supervisors: dict[Worker, asyncio.Task[None]] = {}
        self._room = asyncio.Event()
        self._without_room = 0

    @property
    def is_local(self) -> bool:
        """Whether its servers use this machine."""
        return self._turns is not None and not self._elsewhere

    @property
    def is_down(self) -> bool:
        """Whether every worker has failed for good."""
        return all(worker.state == "failed" for worker in self.workers)

    def start(self) -> None:
        """Start every worker that has not failed; while they stand, a second call does nothing."""
        if not self._supervisors:
            able = [worker for worker in self.workers if worker.state != "failed"]
            self._supervisors = {worker: asyncio.create_task(worker.supervise()) for worker in able}

    def start_early(self) -> None:
        """Start the workers before the first request, where no other fleet has the turn or waits for it."""
        if self._turns is not None and not self.is_down:
            self._turns.start_early(self)

    async def stop(self) -> None:
        """End every worker that is ours; `start` may follow."""
        supervisors, self._supervisors = self._supervisors, {}
        for worker, task in supervisors.items():
            if worker.state != "failed":  # else it ends its server already, in which it must not be disturbed
                task.cancel()
        for ended in await asyncio.gather(*supervisors.values(), return_exceptions=True):
            if isinstance(ended, Exception):
                log.error("a server was not ended as it should be", exc_info=ended)

    def changed(self) -> None:
        """Wake the requests that wait for room."""
        self._room.set()

    async def deliver(self, request: ServerDemand) -> tuple[dict[str, Any], Delivery]:
        """Have a request answered, by another worker where one fails; where it is another model's turn, wait.

        Raises:
            FleetDownError: no worker is left, or those that are left refuse every request.
            GaveUpError: every attempt failed.
            RefusedError: the request itself is bad, so that it was not tried again.
        """
        if self.is_down:
            raise FleetDownError(self.why_down())
        async with self._turns.hold(self) if self._turns is not None else contextlib.nullcontext():
            self.start()
            return await self._try(request)

    async def _try(self, request: ServerDemand) -> tuple[dict[str, Any], Delivery]:
        """Try worker after worker."""
        attempts: list[Attempt] = []
        tried: list[Worker] = []
        errors: list[RequestError | ValueError] = []
        refusing: set[Worker] = set()
        spared, answered = 0, self._answered
        while True:
            async with request.hold():
                worker = await self._acquire(request.index, tried, request.timeout)
                try:
                    return await self._attempt(worker, request, attempts)
                except (RequestError, ValueError) as error:
                    self._note_failure(worker, error, attempts)
                    errors.append(error)
                    if isinstance(error, RequestError) and error.status == TOO_MANY and self._answered > answered:
                        # It was the turn of others. Where nobody is answered, the limit is not one of the rate alone.
                        error.spared, answered = True, self._answered
                    spared += isinstance(error, RequestError) and error.spared
                    if isinstance(error, RequestError) and error.status in advice.OF_THE_SERVER:
                        refusing.add(worker)
                        if refusing.issuperset(each for each in self.workers if each.state == "live"):
                            what = advice.for_attempts([error])
                            raise RefusedError(
                                f"every server refused the request: {error}\nWhat to do: {what}", attempts
                            ) from None
                finally:
                    worker.in_flight -= 1
                    self.changed()
            paid = len(attempts) - spared
            if paid >= self._attempts:
                lines = [f"  {number}. {entry.worker}: {entry.error}" for number, entry in enumerate(attempts, 1)]
                lines += [f"What to do: {advice.for_attempts(errors)}"]
                if all(isinstance(error, OtherPromptError) for error in errors):
                    raise RefusedError("\n".join(["every server changes the prompt:", *lines]), attempts)
                raise GaveUpError("\n".join([f"all {len(attempts)} attempts failed:", *lines]), attempts)
            if len(self.workers) == 1 or worker in tried:
                await asyncio.sleep(BACKOFF_SECONDS * 2 ** max(0, paid - 1))
            tried.append(worker)

    async def _attempt(
        self, worker: Worker, request: ServerDemand, attempts: list[Attempt]
    ) -> tuple[dict[str, Any], Delivery]:
        """One try; it is added to the attempts, whatever comes of it."""
        started, clock = datetime.now(UTC).isoformat(timespec="milliseconds"), time.monotonic()
        error: str | None = None
        try:
            answer = request.check(await request.answer(worker))
            if request.fetch is not None:
                async with asyncio.timeout(request.timeout):
                    await request.fetch(worker, answer)
        except TimeoutError:
            error = f"its files did not come within {request.timeout:g} s"
            raise RequestError(error) from None
        except (RequestError, ValueError) as problem:
            error = str(problem)
            raise
        finally:
            seconds = time.monotonic() - clock
            attempts.append(Attempt(worker=worker.name, started=started, seconds=round(seconds, 4), error=error))
        worker.note_answer()
        return answer, Delivery(worker.name, attempts, started, seconds, worker.hardware)

    def _note_failure(self, worker: Worker, error: RequestError | ValueError, attempts: list[Attempt]) -> None:
        """Keep what a failed try says of the worker.

        Raises:
            RefusedError: another try would fail as well.
        """
        worker.failures += 1
        log.warning("%s: attempt %d failed: %s", worker.name, len(attempts), error)
        if isinstance(error, RequestError):
            worker.leave_alone(error.pause)
            if error.permanent:
                what = f"{worker.name} refused the request: {error}\nWhat to do: {error.advice or advice.REQUEST}"
                if error.of_account:
                    raise FleetDownError(f"{what} What has been made is kept.") from None
                raise RefusedError(what, attempts) from None

    @property
    def _answered(self) -> int:
        """Answers of all workers so far."""
        return sum(worker.served for worker in self.workers)

    async def _acquire(self, index: int, tried: list[Worker], timeout: float) -> Worker:
        """Wait for a worker with room and take a place there.

        Raises:
            FleetDownError: no worker is left, or every one asks for a pause that is longer than the timeout.
        """
        while True:
            live = [worker for worker in self.workers if worker.state == "live"]
            fresh = [worker for worker in live if worker not in tried] or live
            for step in range(len(fresh)):
                worker = fresh[(index + step) % len(fresh)]
                if worker.has_room:
                    worker.in_flight += 1
                    return worker
            if self.is_down:
                raise FleetDownError(self.why_down())
            pause = min((worker.pause for worker in live), default=0.0)
            if pause > timeout and all(worker.state in ("live", "failed") for worker in self.workers):
                raise FleetDownError(
                    f"Every server asks for a pause of {pause:.0f} s, longer than workers.timeout = {timeout:g}.\n"
                    "What to do: run again later, or raise workers.timeout. What has been made is kept."
                )
            await self._wait_for_room(live)

    async def _wait_for_room(self, live: list[Worker]) -> None:
        """Wait until something has changed, or a worker that asked for a pause may be asked again."""
        self._room.clear()
        paused = [worker.pause for worker in live if worker.pause]
        self._without_room += 1
        try:
            async with asyncio.timeout(max(0.01, min(paused)) if paused else None):
                await self._room.wait()
        except TimeoutError:
            pass
        finally:
            self._without_room -= 1

    def why_down(self) -> str:
        """Return why no worker is left, each different reason once."""
        reasons = list(dict.fromkeys(worker.error or worker.name for worker in self.workers))
        what = f"What to do: {advice.for_server(' '.join(reasons))} What has been made is kept."
        return "\n".join(["No model server is left.", *reasons, what])

    def status(self) -> FleetStatus:
        """Return the status for `make watch`: the models served and queued, and the state of each worker."""
        return FleetStatus(
            kind=self.kind,
            model=self.model,
            experiments=sorted(self.experiments),
            standing=self._turns is None or self._turns.standing is self,
            waiting_for_turn=self._turns.queued(self) if self._turns is not None else 0,
            waiting_for_room=self._without_room,
            workers=[
                WorkerStatus(
                    name=worker.name,
                    url=worker.url,
                    state=worker.state,
                    phase=worker.phase(),
                    log_line=worker.log_line(),
                    in_flight=worker.in_flight,
                    served=worker.served,
                    failures=worker.failures,
                    restarts=worker.restarts,
                    error=worker.error,
                )
                for worker in self.workers
            ],
        )
