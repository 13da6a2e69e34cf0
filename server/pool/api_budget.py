"""What calls of an API may cost: each reserves its most before it is made, so that no two together exceed a budget."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from emoprobe.config.execution.workers import Price
from emoprobe.conversations.api import PATH, cost_of, most_tokens, usage_of
from emoprobe.results.api_calls import ApiCalls
from server.pool.connections import RequestError
from server.pool.worker import Worker

FREE = Price(input=0.0, output=0.0)


class OverBudgetError(Exception):
    """Raised for a call that may exceed `workers.max_cost`; the message says what is spent and what to do."""


class ApiBudget:
    """The calls of one experiment and their costs.

    Args:
        calls: those that are recorded.
        prices: `workers.prices`; calls of a model that has none count nothing.
        limit: `workers.max_cost`.
    """

    def __init__(self, calls: ApiCalls, prices: Mapping[str, Price], limit: float | None) -> None:
        self._prices, self._calls, self._limit = prices, calls, limit
        self._reserved = 0.0
        self._holders = 0
        self._settled = asyncio.Event()

    @asynccontextmanager
    async def reserve(self, request: Mapping[str, Any]) -> AsyncIterator[Reservation]:
        """Reserve the most that a call may cost while the block lasts, or until it is made.

        Where the most of all other calls leave no room, wait until one has come to less.

        Args:
            request: what is sent; its model has the price.

        Raises:
            OverBudgetError: it may exceed the limit, and no other call can leave more room.
        """
        price = self._prices.get(request["model"], FREE)
        most = price.of(*most_tokens(request))
        while self._limit is not None and self._calls.spent + self._reserved + most > self._limit:
            if not self._holders:
                raise OverBudgetError(
                    f"workers.max_cost = {self._limit:g} leaves no room for another call: {self._calls.spent:.4g} are "
                    "spent, and a call may cost more than the rest.\nWhat to do: raise workers.max_cost, or lower "
                    "max_tokens, then run again. What has been made is kept."
                )
            self._settled.clear()
            await self._settled.wait()
        held = Reservation(most, price)
        self._reserved += most
        self._holders += 1
        try:
            yield held
        finally:
            self._release(held)
            self._holders -= 1
            if not self._holders:
                self._reserved = 0.0  # without what rounding left
            self._settled.set()

    @asynccontextmanager
    async def call(self, held: Reservation, **about: Any) -> AsyncIterator[Call]:
        """Record the call that the block makes: its most before it, its cost afterwards.

        Args:
            held: what is reserved for it.
            about: what is recorded with it.

        Raises:
            OSError: it cannot be recorded.
        """
        call = Call(held.most, held.price)
        number = self._calls.begin(held.most, **about)
        self._release(held)
        try:
            yield call
        except RequestError as error:
            call.about["error"] = str(error)[:200]
            if not error.billed:
                call.cost = 0.0
            raise
        finally:  # a call that was given up on may be billed, so that it counts at its most
            self._calls.settle(number, call.cost, **call.about)

    def _release(self, held: Reservation) -> None:
        """End a reservation, once: the call is recorded at its most, or is not made."""
        self._reserved -= held.most
        held.most = 0.0


@dataclass
class Reservation:
    """The most that a call may cost, 0 once it is recorded, and its price."""

    most: float
    price: Price


@dataclass
class Call:
    """A call in flight: its cost, the most until that is known, the price, and what is recorded with it."""

    cost: float
    price: Price
    about: dict[str, Any] = field(default_factory=dict)

    def settle(self, response: Mapping[str, Any]) -> None:
        """Take the cost and the model of the call from its response."""
        usage = usage_of(response)
        self.cost = cost_of(usage, self.price, self.cost)
        self.about |= {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "model": response.get("model"),
            "fingerprint": response.get("system_fingerprint"),
        }


class BudgetedRequest:
    """A request to an API, each attempt at which is made within a budget.

    Args:
        budget: of the experiment.
        request: what is sent.
        timeout: seconds for one attempt.
        judge: label of the judge that is asked; None: it is an answer.
        about: what is recorded with each call.
    """

    def __init__(
        self, budget: ApiBudget, request: dict[str, Any], timeout: float, judge: str | None = None, **about: Any
    ) -> None:
        self._budget, self._request, self._timeout = budget, request, timeout
        self._judge = {} if judge is None else {"judge": judge}
        self._about = self._judge | about
        self._held: Reservation | None = None
        self.cost: float | None = None
        """Cost of the last call with a response; None: there was none."""

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Reserve the cost of one attempt, before a worker is taken, so that a request that waits occupies none.

        Raises:
            OverBudgetError: see `ApiBudget.reserve`.
        """
        async with self._budget.reserve(self._request) as self._held:
            yield

    async def send(self, worker: Worker) -> dict[str, Any]:
        """Make the call of an attempt at a worker.

        Raises:
            RequestError: there is no good answer.
            OSError: the call cannot be recorded.
        """
        assert self._held is not None
        where = {"worker": worker.name, "started": datetime.now(UTC).isoformat()}
        async with self._budget.call(self._held, **self._about, **where) as call:
            call.about |= self._judge
            response = await worker.post(PATH, self._request, self._timeout)
            call.settle(response)
        self.cost = call.cost
        return response
