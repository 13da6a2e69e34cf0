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
        self._in_flight = 0
        self._settled = asyncio.Event()

    @asynccontextmanager
    async def call(self, request: Mapping[str, Any], **about: Any) -> AsyncIterator[Call]:
        """Record the call that the block makes: its most before it, its cost afterwards.

        Where the most of all calls in flight leave no room, wait until one has come to less.

        Args:
            request: what is sent; its model has the price.
            about: what is recorded with it.

        Raises:
            OverBudgetError: it may exceed the limit, and no call in flight can leave more room.
            OSError: it cannot be recorded.
        """
        price = self._prices.get(request["model"], FREE)
        most = price.of(*most_tokens(request))
        while self._limit is not None and self._calls.spent + most > self._limit:
            if not self._in_flight:
                raise OverBudgetError(
                    f"workers.max_cost = {self._limit:g} leaves no room for another call: {self._calls.spent:.4g} are "
                    "spent, and a call may cost more than the rest.\nWhat to do: raise workers.max_cost, or lower "
                    "max_tokens, then run again. What has been made is kept."
                )
            self._settled.clear()
            await self._settled.wait()
        # Judgements are recorded as such also where they are settled: they are no answers of the experiment's model.
        call = Call(most, price, {key: value for key, value in about.items() if key == "judge"})
        number = self._calls.begin(most, **about)
        self._in_flight += 1
        try:
            yield call
        except RequestError as error:
            call.about["error"] = str(error)[:200]
            if not error.billed:
                call.cost = 0.0
            raise
        finally:  # a call that was given up on may be billed, so that it counts at its most
            self._in_flight -= 1
            self._settled.set()
            self._calls.settle(number, call.cost, **call.about)

    def settle(self, call: Call, response: dict[str, Any]) -> None:
        """Take the cost and the model of a call from its response."""
        usage = usage_of(response)
        call.cost = cost_of(usage, call.price, call.cost)
        call.about |= {
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "model": response.get("model"),
            "fingerprint": response.get("system_fingerprint"),
        }


@dataclass
class PaidCall:
    """A function that makes a call at a worker, within the budget.

    Args:
        budget: of the experiment.
        request: what is sent.
        timeout: seconds for one attempt.
        about: what is recorded with each attempt.
    """

    budget: ApiBudget
    request: Mapping[str, Any]
    timeout: float
    about: Mapping[str, Any]
    cost: float | None = None
    """Of the last attempt that was answered."""

    async def __call__(self, worker: Worker) -> dict[str, Any]:
        """Make the call.

        Raises:
            RequestError: there is no good answer.
            OverBudgetError: it may cost more than is left.
        """
        started = datetime.now(UTC).isoformat()
        async with self.budget.call(self.request, **self.about, worker=worker.name, started=started) as call:
            response = await worker.post(PATH, dict(self.request), self.timeout)
            self.budget.settle(call, response)
        self.cost = call.cost
        return response


@dataclass
class Call:
    """A call in flight: its cost, the most until that is known, the price, and what is recorded with it."""

    cost: float
    price: Price
    about: dict[str, Any] = field(default_factory=dict)
