"""Trajectories by an OpenAI-compatible API: refusals, rate limits, broken answers, and the budget."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from emoprobe.conversations.requests import request_seed, turn_seed
from emoprobe.results.api_calls import ApiCalls
from emoprobe.results.layout import Layout
from emoprobe.results.trajectory import Sample
from emoprobe.results.verification import check_trajectory
from server.pool import fleet as fleets
from server.pool.api_endpoint import UNNAMED_PAUSE
from server.pool.connections import pause_of
from tests.server.pool.house import GatedStub, House, _Server, trajectory, until

SAMPLES = [f"gsm8k_{number:04d}" for number in range(1, 9)]
PRICE = {"input": 0.0, "output": 1e6}  # a token of a completion costs 1, and the stub's have 32


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "BACKOFF_SECONDS", 0.01)


class Api(GatedStub):
    """An API whose calls have a time."""

    def __init__(self) -> None:
        super().__init__("gpt-x")
        self.times: list[float] = []

    async def complete(self, send: Any, request: dict[str, Any], text: str) -> None:
        self.times.append(time.monotonic())
        await super().complete(send, request, text)


@asynccontextmanager
async def serving(*apis: Api) -> AsyncIterator[list[str]]:
    """Serve APIs on sockets of this process; the value is their URLs."""
    urls, servers = [], []
    for api in apis:
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        server = _Server(uvicorn.Config(api, log_level="critical", access_log=False, lifespan="off"))
        servers.append((server, asyncio.create_task(server.serve(sockets=[listener]))))
        urls.append(f"http://127.0.0.1:{listener.getsockname()[1]}")
    try:
        yield urls
    finally:
        for server, task in servers:
            server.should_exit = server.force_exit = True
            await task


def add(house: House, urls: list[str], **sections: Any) -> Layout:
    workers = {"endpoints": urls, "requests": 4, **sections.pop("workers", {})}
    generation = {"backend": "api", "max_tokens": 64, **sections.pop("generation", {})}
    house.add("two")  # a run in which nothing else is left to do is stopped
    return house.add("one", "gpt-x", samples=8, workers=workers, generation=generation, **sections)


def ask(house: House, *apis: Api, pairs: int = 1, together: bool = False, **sections: Any) -> tuple[Layout, list[str]]:
    """One run that asks for the trajectories of control, one after the other or together."""

    async def scenario() -> tuple[Layout, list[str]]:
        async with serving(*apis) as urls, house.pool():
            layout = add(house, urls, **sections)
            jobs = [house.ask("generate", "one", "control", sample) for sample in SAMPLES[:pairs]]
            return layout, list(await asyncio.gather(*jobs)) if together else [await job for job in jobs]

    return asyncio.run(scenario())


def test_messages_are_sent_and_text_is_recorded(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_API_KEY", "sesame")
    api = Api()
    api.api_key = "sesame"
    fields = {"seed": None, "max_tokens": None, "max_completion_tokens": 64, "reasoning_effort": "low"}
    layout, answers = ask(
        house, api, generation={"api_request": fields, "stop": ["END"]}, workers={"api_key_env": "MY_API_KEY"}
    )
    assert answers == ["ok\n"]
    (request,) = api.requests
    assert request.keys() == {
        "model", "messages", "temperature", "top_p", "stop", "max_completion_tokens", "reasoning_effort"
    }  # fmt: skip
    assert (request["model"], request["messages"][-1]["role"]) == ("gpt-x", "user")
    made = trajectory(layout, "control", SAMPLES[0])
    assert made.state is not None
    assert made.state.request == request
    assert (made.state.token_ids, made.state.prompt_text, made.state.backend) == (None, None, "api")
    assert made.state.usage.completion_tokens == 32
    assert made.completion.startswith("I think about it")
    assert made.outcome is not None
    assert made.outcome.metrics.efficiency is not None
    assert check_trajectory(layout.pair("control", SAMPLES[0]), "control", SAMPLES[0]).problems == []


def test_a_key_that_is_renewed_is_used(house: House, tmp_path: Path) -> None:
    """As that of servers which are deployed again, for a pool that is kept alive."""
    api, path = Api(), tmp_path / "key"

    async def scenario() -> list[str]:
        answers = []
        async with serving(api) as urls, house.pool():
            add(house, urls, workers={"api_key_file": str(path)})
            for sample, key in zip(SAMPLES, ("old", "new"), strict=False):
                api.api_key = key
                path.write_text(f"{key}\n")
                answers.append(await house.ask("generate", "one", "control", sample))
        return answers

    assert asyncio.run(scenario()) == ["ok\n", "ok\n"]


def test_the_seed_of_a_draw_is_sent(house: House) -> None:
    api = Api()
    _, answers = ask(house, api, pairs=2)
    assert answers == ["ok\n"] * 2
    assert len({request["seed"] for request in api.requests}) == 2
    assert {request["max_tokens"] for request in api.requests} == {64}


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "api_request (of generation"),
        (401, "set api_key_env (of workers"),
        (402, "add credit"),
        (403, "use a key that may do this"),
        (404, "set model.source"),
        (422, "api_request (of generation"),
    ],
)
def test_a_permanent_refusal_is_one_call_that_says_what_to_do(house: House, status: int, words: str) -> None:
    first, second = Api(), Api()
    for api in (first, second):
        api.faults = [{"kind": "status", "status": status, "message": "no such thing", "times": 99}]
    layout, (answer,) = ask(house, first, second)
    assert len(first.requests) + len(second.requests) == 1
    for expected in (f"status {status}: no such thing", "What to do: ", words):
        assert expected in answer
    assert not layout.pair("control", SAMPLES[0]).exists()


def test_a_refused_account_becomes_no_record_of_a_pair(house: House) -> None:
    api = Api()
    api.faults = [{"kind": "status", "status": 401, "times": 99}]
    layout, answers = ask(house, api, generation={"allowed_failures": 0.5})
    assert "status 401" in answers[0]
    assert not layout.pair("control", SAMPLES[0]).exists()


def test_no_quota_is_no_rate_limit(house: House) -> None:
    api = Api()
    api.faults = [{"kind": "status", "status": 429, "message": "insufficient_quota", "times": 99}]
    _, (answer,) = ask(house, api)
    assert len(api.requests) == 1
    assert "add credit" in answer


BROKEN: dict[str, dict[str, Any]] = {
    "500": {"kind": "status", "status": 500},
    "503": {"kind": "status", "status": 503, "headers": {"Retry-After": "0"}},
    "error in 200": {"kind": "raw", "body": '{"error": {"message": "overloaded", "code": 502}}'},
    "half a stream": {"kind": "raw", "body": 'data: {"choices": [{"delta": {"con', "headers": {"content-type": "text/event-stream"}},
    "truncated": {"kind": "truncated"},
    "connection lost": {"kind": "reset"},
    "a page": {"kind": "raw", "body": "<html>Sign in</html>", "headers": {"content-type": "text/html"}},
    "json by another name": {"kind": "raw", "body": '{"choices": []}', "headers": {"content-type": "text/plain"}},
    "no choices": {"kind": "raw", "body": '{"choices": []}'},
    "no text": {"kind": "raw", "body": '{"choices": [{"message": {"content": ""}, "finish_reason": "stop"}]}'},
    "filtered": {"kind": "raw", "body": '{"choices": [{"message": {"content": "I"}, "finish_reason": "content_filter"}]}'},
    "no object": {"kind": "nonsense"},
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_answer_is_a_failed_attempt(house: House, fault: str) -> None:
    api = Api()
    api.faults = [{**BROKEN[fault], "times": 2}]
    layout, answers = ask(house, api, pairs=2)
    assert answers == ["ok\n"] * 2
    assert len(api.requests) == 4
    state = trajectory(layout, "control", SAMPLES[0]).state
    assert state is not None
    assert [attempt.error is None for attempt in state.attempts] == [False, False, True]


@pytest.mark.parametrize("fault", ["500", "error in 200", "half a stream"])
def test_one_failed_answer_costs_as_many_calls_as_attempts(house: House, fault: str) -> None:
    api = Api()
    api.faults = [{**BROKEN[fault], "times": 99}]
    layout, answers = ask(house, api, generation={"allowed_failures": 0.1})
    assert answers == ["ok\n"]
    assert len(api.requests) == 3
    made = trajectory(layout, "control", SAMPLES[0])
    assert "all 3 attempts failed" in (made.failure or "")
    assert check_trajectory(layout.pair("control", SAMPLES[0]), "control", SAMPLES[0]).problems == []


def test_a_rate_limit_is_waited_for_and_no_other_endpoint_is_held_up(house: House) -> None:
    limited, free = Api(), Api()
    limited.faults = [{"kind": "status", "status": 429, "headers": {"Retry-After": "300"}, "times": 99}]
    layout, answers = ask(house, limited, free, pairs=8, together=True)
    assert answers == ["ok\n"] * 8
    workers = [trajectory(layout, "control", sample).state.worker_id for sample in SAMPLES]  # type: ignore[union-attr]
    assert workers == ["endpoint-1"] * 8
    assert len(limited.requests) <= 4  # those in flight when the first was refused


class Unfair(Api):
    """An API that refuses one question whenever another one was answered since it last did."""

    def __init__(self, question: str) -> None:
        super().__init__()
        self.question = question
        self.served = self.refusals = 0

    async def complete(self, send: Any, request: dict[str, Any], text: str) -> None:
        await self.gate.wait()
        if not self.says(self.question, request, text):
            self.served += 1
        elif self.served:
            self.served, self.refusals = 0, self.refusals + 1
            self.faults = [{"kind": "status", "status": 429, "headers": {"Retry-After": "0.01"}}]
        await super().complete(send, request, text)


def test_nobody_is_given_up_because_others_were_served_first(house: House) -> None:
    api = Unfair("0 + 1?")

    async def waiting() -> bool:
        return sum(fleet["waiting_for_room"] for fleet in (await house.status())["fleets"]) == len(SAMPLES) - 1

    async def scenario() -> list[str]:
        async with serving(api) as urls, house.pool():
            layout = add(house, urls, workers={"requests": 1, "attempts": 1})
            assert api.question in Sample.read(layout.sample(SAMPLES[0])).question
            api.gate.clear()
            jobs = [asyncio.create_task(house.ask("generate", "one", "control", SAMPLES[1]))]
            await until(lambda: len(api.requests) == 1)
            others = [SAMPLES[0], *SAMPLES[2:]]
            jobs += [asyncio.create_task(house.ask("generate", "one", "control", sample)) for sample in others]
            await until(waiting)  # all have begun before the first one is answered
            api.gate.set()
            return [await job for job in jobs]

    assert asyncio.run(scenario()) == ["ok\n"] * len(SAMPLES)
    assert api.refusals > 0


def test_a_limit_without_end_takes_as_many_calls_as_attempts(house: House) -> None:
    api = Api()
    api.faults = [{"kind": "status", "status": 429, "headers": {"Retry-After": "0.2"}, "times": 99}]
    _, (answer,) = ask(house, api)
    assert "all 3 attempts failed" in answer
    assert len(api.requests) == 3
    assert all(later - earlier >= 0.19 for earlier, later in zip(api.times, api.times[1:], strict=False))


def test_a_pause_that_is_too_long_ends_the_run(house: House) -> None:
    api = Api()
    api.faults = [{"kind": "status", "status": 429, "headers": {"Retry-After": "3600"}, "times": 99}]
    _, (answer,) = ask(house, api, workers={"timeout": 60.0})
    assert "longer than workers.timeout = 60" in answer
    assert "What has been made is kept" in answer
    assert len(api.requests) == 1


def test_a_pause_is_a_number_of_seconds_or_a_date() -> None:
    def asked(**headers: str) -> float:
        return pause_of(httpx.Response(429, headers=headers), UNNAMED_PAUSE)

    now = datetime.now(UTC).replace(microsecond=0)
    dates = {
        "date": format_datetime(now, usegmt=True),
        "retry-after": format_datetime(now + timedelta(seconds=90), usegmt=True),
    }
    assert asked(**{"retry-after": "7"}) == 7
    assert asked(**{"retry-after": "0.25"}) == 0.25
    assert asked(**dates) == 90
    assert 85 < asked(**{"retry-after": dates["retry-after"]}) <= 90  # without the server's clock, by this machine's
    assert asked(**{"retry-after": format_datetime(now - timedelta(days=1), usegmt=True)}) == 0
    far = "Wed, 21 Oct 99999999999999999999 07:28:00 GMT"
    assert asked(**{"retry-after": far}) == asked(**{"retry-after": "1e400"}) == UNNAMED_PAUSE
    assert asked() == asked(**{"retry-after": "soon"}) == asked(**{"retry-after": "nan"}) == UNNAMED_PAUSE


def calls(layout: Layout) -> list[dict[str, Any]]:
    return [json.loads(line) for line in layout.api_calls.read_text().splitlines()]


def spent_after_each_line(layout: Layout) -> list[float]:
    """What was spent or reserved after each line of the record, in the order in which they were written."""
    costs: dict[int, float] = {}
    totals = []
    for line in calls(layout):
        costs[line["call"]] = line["cost"] if "cost" in line else line["most"]
        totals.append(sum(costs.values()))
    return totals


BUDGET: Any = {"prices": {"gpt-x": PRICE}, "max_cost": 140.0, "requests": 8}


def test_calls_in_flight_do_not_exceed_the_budget_together(house: House) -> None:
    """A call may cost 64 and costs 32: two fit at once, and of all eight as many as the money is enough for."""
    api = Api()

    async def scenario() -> list[str]:
        async with serving(api) as urls, house.pool():
            layout = add(house, urls, workers=BUDGET)
            api.gate.clear()
            jobs = [asyncio.create_task(house.ask("generate", "one", "control", sample)) for sample in SAMPLES]
            await until(lambda: len(api.requests) == 2)
            assert ApiCalls(layout.api_calls).spent == 128
            api.gate.set()
            return [await job for job in jobs]

    answers = asyncio.run(scenario())
    made = [answer == "ok\n" for answer in answers]
    assert made.count(True) == 3  # after 96, the next one may cost 64
    refused = next(answer for answer in answers if answer != "ok\n")
    assert "workers.max_cost = 140 leaves no room for another call: 96 are spent" in refused
    assert "raise workers.max_cost" in refused
    layout = house.layout("one")
    for sample, done in zip(SAMPLES, made, strict=True):
        assert layout.pair("control", sample).exists() is done
    assert ApiCalls(layout.api_calls).spent == 96
    assert max(spent_after_each_line(layout)) == 128  # two at once; three would have been 192
    assert [(line["cost"], line["completion_tokens"], line["model"]) for line in calls(layout) if "cost" in line] == [
        (32.0, 32, "stub")
    ] * 3


def test_spent_money_survives_the_pool_and_lost_calls_count(house: House) -> None:
    layout, answers = ask(house, Api(), pairs=1, workers=BUDGET)
    assert answers == ["ok\n"]
    with open(layout.api_calls, "a") as file:
        file.write('{"call": 2, "most": 64.0}\n{"call": 2, "co')  # a pool that was killed while a call was in flight
    api = Api()
    _, (again,) = ask(house, api, pairs=1, workers=BUDGET)
    assert "96 are spent" in again
    assert api.requests == []
    _, answers = ask(house, api, pairs=1, workers=BUDGET | {"max_cost": 200.0})
    assert answers == ["ok\n"]
    assert ApiCalls(layout.api_calls).spent == 128
    assert calls_readable(layout.api_calls) == 5


def calls_readable(path: Path) -> int:
    found = 0
    for line in path.read_text().splitlines():
        try:
            json.loads(line)
        except ValueError:
            continue
        found += 1
    return found


@pytest.mark.parametrize(
    ("fault", "spent"),
    [("500", 32.0), ("truncated", 96.0), ("no choices", 96.0), ("connection lost", 96.0)],
)
def test_calls_that_may_be_billed_count_at_their_most(house: House, fault: str, spent: float) -> None:
    api = Api()
    api.faults = [dict(BROKEN[fault])]
    layout, answers = ask(house, api, workers=BUDGET)
    assert answers == ["ok\n"]
    assert ApiCalls(layout.api_calls).spent == spent


def test_who_waits_for_a_budget_keeps_no_place_from_others(house: House) -> None:
    """One experiment has money for a call at a time, and another one shares its API, which takes two at once."""
    api = Api()

    async def scenario() -> list[str]:
        async with serving(api) as urls, house.pool():
            workers = {"endpoints": urls, "requests": 2, "prices": {"gpt-x": PRICE}}
            shared: Any = {"generation": {"backend": "api", "max_tokens": 64}, "samples": 8}
            house.add("poor", "gpt-x", workers=workers | {"max_cost": 100.0}, **shared)
            house.add("rich", "gpt-x", workers=workers, **shared)
            api.gate.clear()
            jobs = [asyncio.create_task(house.ask("generate", "poor", "control", sample)) for sample in SAMPLES[:2]]
            await until(lambda: len(api.requests) == 1)
            jobs.append(asyncio.create_task(house.ask("generate", "rich", "control", SAMPLES[0])))
            await until(lambda: len(api.requests) == 2)
            api.gate.set()
            return [await job for job in jobs]

    assert asyncio.run(scenario()) == ["ok\n"] * 3


SCRIPT: Any = {"kind": "scripted", "turns": [{"text": "Try again."}, {"text": "Sure?"}]}


def thoughtful(text: str) -> dict[str, Any]:
    """A fault that is none: an answer with a thought in a field of its own."""
    message = {"role": "assistant", "content": text, "reasoning_content": "Hm."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    usage = {"prompt_tokens": 5, "completion_tokens": 7}
    return {"kind": "raw", "body": json.dumps({"model": "stub", "choices": [choice], "usage": usage})}


def test_every_turn_of_a_conversation_is_asked_paid_and_recorded(house: House) -> None:
    api = Api()
    api.faults = [thoughtful("Answer: 1")]
    layout, answers = ask(house, api, conversation=SCRIPT, workers={**BUDGET, "max_cost": 1000.0})
    assert answers == ["ok\n"]
    made = trajectory(layout, "control", SAMPLES[0])
    assert made.state is not None
    assert made.state.earlier_turns is not None
    assert [one["role"] for one in made.messages] == ["system", *(["user", "assistant"] * 3)]
    assert [made.messages[at]["content"] for at in (3, 5)] == ["Try again.", "Sure?"]
    assert made.messages[2]["reasoning_content"] == "Hm."
    # Of earlier answers the API gets the text alone, and the record shows what it got.
    assert api.requests[1]["messages"][-2:] == [
        {"role": "assistant", "content": "Answer: 1"},
        {"role": "user", "content": "Try again."},
    ]
    assert [made.state.earlier_turns[1].request["seed"], made.state.request] == [
        api.requests[1]["seed"],
        api.requests[2],
    ]
    first = request_seed(42, SAMPLES[0])
    assert [request["seed"] for request in api.requests] == [first, turn_seed(first, 2), turn_seed(first, 3)]
    assert [turn.number for turn in made.state.earlier_turns] == [1, 2]
    assert made.state.earlier_turns[0].answer == 2
    assert made.state.turn == 3
    assert (len(ApiCalls(layout.api_calls)), ApiCalls(layout.api_calls).spent) == (3, 7 + 32 + 32)
    assert check_trajectory(layout.pair("control", SAMPLES[0]), "control", SAMPLES[0]).problems == []


def test_a_turn_that_the_budget_has_no_room_for_ends_the_conversation_without_a_record(house: House) -> None:
    api = Api()
    layout, (answer,) = ask(house, api, conversation=SCRIPT, workers=BUDGET | {"max_cost": 120.0})
    assert "64 are spent" in answer  # after two turns of 32, the third one may cost 64 of 120
    assert len(api.requests) == 2
    assert not layout.pair("control", SAMPLES[0]).exists()


def test_a_turn_without_an_answer_costs_its_attempts_and_makes_a_record(house: House) -> None:
    api = Api()
    api.faults = [{**BROKEN["500"], "times": 99, "match": "Try again."}]
    layout, answers = ask(house, api, conversation=SCRIPT, generation={"allowed_failures": 0.1})
    assert answers == ["ok\n"]
    assert len(api.requests) == 1 + 3
    made = trajectory(layout, "control", SAMPLES[0])
    assert made.state is not None
    assert "all 3 attempts failed" in (made.failure or "")
    assert (made.state.turn, len(made.state.earlier_turns or [])) == (2, 1)
    assert made.messages[-2:] == [{"role": "user", "content": "Try again."}, {"role": "assistant", "content": ""}]
    assert check_trajectory(layout.pair("control", SAMPLES[0]), "control", SAMPLES[0]).problems == []


@pytest.mark.parametrize(("gold", "taken"), [("1", "Well done."), ("2", "That is wrong.")])
def test_turns_follow_the_grade_of_the_answer_before(house: House, gold: str, taken: str) -> None:
    turns = [{"text": "That is wrong.", "when": "after_wrong"}, {"text": "Well done.", "when": "after_right"}]
    api = Api()
    api.faults = [thoughtful("Answer: 1"), thoughtful("Answer: 3")]

    async def scenario() -> Layout:
        async with serving(api) as urls, house.pool():
            layout = add(house, urls, conversation={"kind": "scripted", "turns": turns})
            sample = Sample.read(layout.sample(SAMPLES[0]))
            sample.model_copy(update={"answer": gold}).write(layout.sample(SAMPLES[0]))
            assert await house.ask("generate", "one", "control", SAMPLES[0]) == "ok\n"
            return layout

    messages = trajectory(asyncio.run(scenario()), "control", SAMPLES[0]).messages
    # The answer to "That is wrong." is wrong as well, so that "Well done." does not follow.
    assert [one["content"] for one in messages if one["role"] == "user"][1:] == [taken]
