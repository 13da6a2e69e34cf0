"""Model after model: of all fleets that stand on this machine with one kind of server, one at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

log = logging.getLogger(__name__)

LINGER_SECONDS = 1.0
LONGEST_SECONDS = 900.0
# So many times longer is the moment before another kind of server gets the GPUs: there is no way back until it is done.
OTHER_KIND = 10


class Standing(Protocol):
    """The servers of one model, which take turns with others."""

    @property
    def kind(self) -> str:
        """Kind of its servers."""
        ...

    @property
    def is_down(self) -> bool:
        """Whether it cannot answer any more."""
        ...

    def start(self) -> None:
        """Start the servers."""
        ...

    async def stop(self) -> None:
        """End the servers; none is left when this returns."""
        ...


class Turns:
    """Decides which fleet stands. Requests for another one wait until its turn comes, in order of first request.

    A turn ends when its fleet has had nothing to do for a moment while others wait. Jobs come model after model, so
    the moment is there for the next job of the same model: a server's start costs more. Where requests for the same
    fleet never end, the turn ends all the same some time after others began to wait: later requests go to the end of
    the queue, and what is in flight is answered first. Where vLLM and the capture server take turns, neither cuts the
    other's short: all that one has to do is done first.

    Args:
        linger: seconds without a request after which a turn ends.
        longest: seconds that others wait at most before the fleet takes no more requests.
    """

    def __init__(self, linger: float = LINGER_SECONDS, longest: float = LONGEST_SECONDS) -> None:
        self._linger_seconds, self._longest_seconds = linger, longest
        self.standing: Standing | None = None
        self._users = 0
        self._closed = False
        self._queue: dict[Standing, list[asyncio.Future[None]]] = {}
        self._linger: asyncio.TimerHandle | None = None
        self._longest: asyncio.TimerHandle | None = None
        self._switching: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def hold(self, fleet: Standing) -> AsyncIterator[None]:
        """Wait for a fleet's turn; the turn does not end before the block does."""
        await self._enter(fleet)
        try:
            yield
        finally:
            self._leave()

    def start_early(self, fleet: Standing) -> None:
        """Start a fleet before its first request, where none stands and none waits for its turn."""
        if self.standing is None and self._switching is None and not self._queue:
            self.standing = fleet
            fleet.start()

    def end_unused(self, kind: str) -> None:
        """End the servers of a kind that stand without a request. The next request starts them again."""
        unused = self.standing is not None and self.standing.kind == kind and not self._users
        if unused and self._switching is None:
            self._begin_switch()

    def queued(self, fleet: Standing) -> int:
        """Return the number of requests that wait for a fleet's turn."""
        return len(self._queue.get(fleet, []))

    async def close(self) -> None:
        """Begin no other turn."""
        self._cancel_timers()
        if self._switching is not None:
            self._switching.cancel()
            await asyncio.gather(self._switching, return_exceptions=True)

    async def _enter(self, fleet: Standing) -> None:
        if fleet is self.standing and not self._closed:
            self._users += 1
            self._cancel_linger()
            return
        place = asyncio.get_running_loop().create_future()
        self._queue.setdefault(fleet, []).append(place)
        self._consider()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():  # its turn came in the same moment
                self._leave()
            else:
                self._forget(fleet, place)
            raise

    def _leave(self) -> None:
        self._users -= 1
        self._consider()

    def _forget(self, fleet: Standing, place: asyncio.Future[None]) -> None:
        places = self._queue.get(fleet, [])
        if place in places:
            places.remove(place)
        if not places:
            self._queue.pop(fleet, None)
        if self._switching is None and all(other is self.standing for other in self._queue):
            # Nobody else waits any more, so the turn goes on.
            self._cancel_timers()
            self._closed = False
            self._admit()

    def _consider(self) -> None:
        """Look whether the turn should end, or end soon."""
        if self._switching is not None or not self._queue:
            return
        loop = asyncio.get_running_loop()
        if self.standing is None or (self._users == 0 and (self._closed or self.standing.is_down)):
            self._begin_switch()
            return
        same = any(fleet.kind == self.standing.kind for fleet in self._queue)
        if self._users == 0:
            seconds = self._linger_seconds * (1 if same else OTHER_KIND)
            self._linger = self._linger or loop.call_later(seconds, self._begin_switch)
        if same:
            self._longest = self._longest or loop.call_later(self._longest_seconds, self._close_turn)

    def _close_turn(self) -> None:
        """Take no more requests in this turn: others have waited long enough."""
        self._longest = None
        self._closed = True
        self._consider()

    def _begin_switch(self) -> None:
        self._cancel_timers()
        self._switching = asyncio.create_task(self._switch())
        self._switching.add_done_callback(self._switched)

    def _switched(self, task: asyncio.Task[None]) -> None:
        self._switching = None
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            log.error("the next model's servers cannot be started", exc_info=error)
            # Those who wait for them get the error; they would wait for ever.
            self.standing = None
            for place in self._queue.pop(next(iter(self._queue)), []) if self._queue else []:
                if not place.done():
                    place.set_exception(error)
        self._consider()

    async def _switch(self) -> None:
        """End the servers that stand and start those that were asked for first."""
        old, self.standing = self.standing, None
        if old is not None:
            await old.stop()
        fleets = list(self._queue)
        if not fleets:  # whoever waited has gone
            return
        # All models generate before the GPUs pass to the capture server.
        fleet = next((each for each in fleets if old is not None and each.kind == old.kind), fleets[0])
        self.standing, self._closed = fleet, False
        if not fleet.is_down:
            fleet.start()
        self._admit()

    def _admit(self) -> None:
        """Let the requests in that wait for the fleet that stands."""
        for place in self._queue.pop(self.standing, []) if self.standing is not None else []:
            if not place.done():
                self._users += 1
                place.set_result(None)

    def _cancel_linger(self) -> None:
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None

    def _cancel_timers(self) -> None:
        self._cancel_linger()
        if self._longest is not None:
            self._longest.cancel()
            self._longest = None
