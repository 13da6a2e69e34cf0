"""Workers of one kind, and how requests are spread over them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from emoprobe.results.trajectory import Attempt
from emoprobe.tasks.responses import Delivery
from server.pool.replies import RequestError
from server.pool.worker import Worker

log = logging.getLogger(__name__)

BACKOFF_SECONDS = 0.5
GAVE_UP = "What to do: run again for new attempts; logs/pool.log and logs/servers/ of the experiment tell more."
REFUSED = (
    "What to do: change what is asked (the prompt, generation.max_tokens, generation.engine.max_model_len), "
    "then run again."
)
DOWN = "What to do: mend the cause, then run again; what has been made is kept."


class FleetDownError(Exception):
    """No worker is left; the message says why, with the end of the server's log."""


class GaveUpError(Exception):
    """A request that no attempt answered; the message says what came back."""


class RefusedError(Exception):
    """A request that no server would accept; the message says why."""


class Fleet:
    """Spreads requests round robin over live workers and gives a failed one to the next.

    A request has a home: the live worker at (pair index modulo their number). It goes elsewhere only where the home
    has no room, or has failed it before.
    """

    def __init__(self, workers: list[Worker], attempts: int) -> None:
        self.workers = workers
        self._attempts = attempts
        self._supervisors: list[asyncio.Task[None]] = []
        self._room = asyncio.Event()

    def start(self) -> None:
        """Start every worker; a second call does nothing."""
        if not self._supervisors:
            self._supervisors = [asyncio.create_task(worker.supervise()) for worker in self.workers]

    async def stop(self) -> None:
        """End every worker that is ours."""
        for task in self._supervisors:
            task.cancel()
        await asyncio.gather(*self._supervisors, return_exceptions=True)

    def changed(self) -> None:
        """Wake the requests that wait for room."""
        self._room.set()

    async def request(
        self, index: int, path: str, body: dict[str, Any], timeout: float, check: Callable[[Any], dict[str, Any]]
    ) -> tuple[dict[str, Any], Delivery]:
        """Have a request answered, by another worker where one fails.

        Args:
            index: the pair's index, which picks the worker.
            path: the route, such as `/v1/chat/completions`.
            body: the JSON body.
            timeout: seconds for one attempt.
            check: returns an answer that is good and raises ValueError for one that is not.

        Raises:
            FleetDownError: no worker is left.
            GaveUpError: every attempt failed.
            RefusedError: the request itself is bad, so that it was not tried again.
        """
        attempts: list[Attempt] = []
        tried: list[Worker] = []
        while True:
            worker = await self._acquire(index, tried)
            started, clock = datetime.now(UTC), time.monotonic()
            attempt = Attempt(worker=worker.name, started=started.isoformat(timespec="milliseconds"))
            try:
                answer = check(await worker.post(path, body, timeout))
            except (RequestError, ValueError) as error:
                worker.failures += 1
                seconds = round(time.monotonic() - clock, 4)
                attempts.append(attempt.model_copy(update={"seconds": seconds, "error": str(error)}))
                log.warning("%s: attempt %d failed: %s", worker.name, len(attempts), error)
                pause = error.pause if isinstance(error, RequestError) else 0.0
                worker.paused_until = max(worker.paused_until, time.monotonic() + pause)
                if isinstance(error, RequestError) and error.permanent:
                    raise RefusedError(f"{worker.name} refused the request: {error}\n{REFUSED}") from None
            else:
                worker.served += 1
                seconds = time.monotonic() - clock
                attempts.append(attempt.model_copy(update={"seconds": round(seconds, 4)}))
                return answer, Delivery(worker.name, attempts, started.isoformat(timespec="milliseconds"), seconds)
            finally:
                worker.in_flight -= 1
                self.changed()
            if len(attempts) >= self._attempts:
                lines = [f"  {number}. {entry.worker}: {entry.error}" for number, entry in enumerate(attempts, 1)]
                raise GaveUpError("\n".join([f"all {len(attempts)} attempts failed:", *lines, GAVE_UP]))
            if len(self.workers) == 1 or worker in tried:
                await asyncio.sleep(BACKOFF_SECONDS * 2 ** (len(attempts) - 1))
            tried.append(worker)

    async def _acquire(self, index: int, tried: list[Worker]) -> Worker:
        """Wait for a worker with room and take a place there."""
        self.start()
        while True:
            live = [worker for worker in self.workers if worker.state == "live"]
            fresh = [worker for worker in live if worker not in tried] or live
            for step in range(len(fresh)):
                worker = fresh[(index + step) % len(fresh)]
                if worker.has_room:
                    worker.in_flight += 1
                    return worker
            if all(worker.state == "failed" for worker in self.workers):
                raise FleetDownError(self.why_down())
            self._room.clear()
            paused = [worker.paused_until for worker in live if worker.paused_until > time.monotonic()]
            timeout = max(0.01, min(paused) - time.monotonic()) if paused else None
            try:
                async with asyncio.timeout(timeout):
                    await self._room.wait()
            except TimeoutError:
                pass

    def why_down(self) -> str:
        """Why no worker is left: each different reason once."""
        reasons = list(dict.fromkeys(worker.error or worker.name for worker in self.workers))
        return "\n".join(["No model server is left.", *reasons, DOWN])
