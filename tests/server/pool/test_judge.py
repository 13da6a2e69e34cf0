"""Judgements by an API: what is asked, recorded, lost, refused, and paid."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from emoprobe.models.placement import PlacementError
from emoprobe.models.resolved import ResolveError
from emoprobe.results.api_calls import ApiCalls
from emoprobe.results.judgement import Comparison, Judgement, read_judgement
from emoprobe.results.layout import Layout
from emoprobe.results.verification import check_judgement
from server.pool import fleet as fleets
from tests.judges import judge
from tests.server.pool.house import VARIANTS, House, trajectory, until
from tests.server.pool.test_api import Api, serving

SAMPLES = [f"gsm8k_{number:04d}" for number in range(1, 5)]


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "BACKOFF_SECONDS", 0.01)


def judged(
    house: House, api: Api, *pairs: tuple[str, str], keys: dict[str, Any] | None = None, **sections: Any
) -> tuple[Layout, list[str]]:
    """One run that generates trajectories and has them judged."""

    async def scenario() -> tuple[Layout, list[str]]:
        async with serving(api) as urls, house.pool():
            graders = ["number", judge(label="polite", endpoints=urls, **(keys or {}))]
            house.add("two")
            layout = house.add("one", graders=graders, **sections)
            for pair in pairs:
                assert await house.ask("generate", "one", *pair) == "ok\n"
            return layout, [await house.send(["judge", "one", "polite", *pair]) for pair in pairs]

    return asyncio.run(scenario())


def read(layout: Layout, variant: str = "calm", sample: str = SAMPLES[0]) -> Judgement:
    return Judgement.read_file(layout.judgement("polite", variant, sample))


def test_a_judgement_has_request_response_value_and_reason(house: House) -> None:
    api = Api()
    pairs = [(variant, sample) for sample in SAMPLES for variant in VARIANTS]
    layout, answers = judged(house, api, *pairs)
    assert answers == ["ok\n"] * len(pairs)
    assert len(api.requests) == len(pairs)
    for variant, sample in pairs:
        made, conversation = read(layout, variant, sample), trajectory(layout, variant, sample)
        assert made.request in api.requests
        assert made.request["messages"][-1]["content"].endswith(f"<answer>\n{conversation.completion}\n</answer>")
        assert made.value is (conversation.completion[-1] in "02468")
        assert made.reason == f"it ends with {conversation.completion[-1]}"
        assert made.response["choices"][0]["message"]["content"] == made.reply
        assert (made.usage.completion_tokens, made.cost, made.unusable, made.error) == (32, None, None, None)
        assert conversation.state is not None
        path = layout.judgement("polite", variant, sample)
        hashes = {(variant, sample): conversation.state.hashes}
        assert check_judgement(path, "polite", variant, sample, hashes) == []
        assert check_judgement(path, "polite", variant, "gsm8k_0009", hashes)
    # Nothing of a request tells one variant from another but the answer.
    assert VARIANTS["calm"]["text"] not in json.dumps(api.requests)
    path = layout.judgement("polite", "calm", SAMPLES[0])
    path.write_text(path.read_text().replace('"value": true', '"value": false').replace("ends", "begins"))
    assert "was changed after it was written" in check_judgement(path, "polite", "calm", SAMPLES[0], {})[0]


def test_nonsense_is_one_call_and_is_recorded(house: House) -> None:
    reply = {"message": {"role": "assistant", "content": "I would rather not say."}, "finish_reason": "stop"}
    api = Api()
    api.faults = [{"kind": "raw", "body": json.dumps({"choices": [reply]})}]
    layout, answers = judged(house, api, ("calm", SAMPLES[0]))
    assert answers == ["ok\n"]
    assert len(api.requests) == 1
    made = read(layout)
    assert (made.value, made.reply, made.error) == (None, "I would rather not say.", None)
    assert "no JSON object" in (made.unusable or "")


@pytest.mark.parametrize("fault", [{"kind": "status", "status": 500}, {"kind": "raw", "body": '{"choices": []}'}])
def test_lost_calls_are_made_again_and_then_within_the_allowed_failures_a_record(
    house: House, fault: dict[str, Any]
) -> None:
    api = Api()
    api.faults = [{**fault, "times": 2}]
    layout, answers = judged(house, api, ("calm", SAMPLES[0]))
    assert answers == ["ok\n"]
    assert [attempt.error is None for attempt in read(layout).attempts] == [False, False, True]
    api.faults = [{**fault, "times": 3}]
    _, (answer,) = judged(house, api, ("calm", SAMPLES[1]))
    assert "all 3 attempts failed" in answer
    assert "generation.allowed_failures is 0" in answer
    assert not layout.judgement("polite", "calm", SAMPLES[1]).exists()
    api.faults = [{**fault, "times": 3}]
    _, (answer,) = judged(house, api, ("calm", SAMPLES[1]), generation={"allowed_failures": 0.25})
    assert answer == "ok\n"
    made = read(layout, sample=SAMPLES[1])
    assert "all 3 attempts failed" in (made.error or "")
    assert (made.value, made.reply, len(made.attempts)) == (None, None, 3)


def test_a_request_that_shows_the_variant_is_not_sent(house: House) -> None:
    api = Api()
    layout, (answer,) = judged(house, api, ("control", SAMPLES[0]), keys={"rubric": "Polite? It is a quiet day."})
    assert "variants.calm" in answer
    assert api.requests == []
    assert not layout.judgement("polite", "control", SAMPLES[0]).exists()


def compared(house: House, api: Api, *samples: str, **sections: Any) -> tuple[Layout, list[str]]:
    """One run that generates answers of both variants and has them compared."""

    async def scenario() -> tuple[Layout, list[str]]:
        async with serving(api) as urls, house.pool():
            keys = sections.pop("keys", {})
            graders = ["number", judge(label="polite", endpoints=urls, compare_with="control", **keys)]
            house.add("two")
            layout = house.add("one", graders=graders, **sections)
            for sample in samples:
                for variant in VARIANTS:
                    assert await house.ask("generate", "one", variant, sample) == "ok\n"
            return layout, [await house.send(["judge", "one", "polite", "calm", sample]) for sample in samples]

    return asyncio.run(scenario())


def pair(layout: Layout, sample: str = SAMPLES[0]) -> Comparison:
    made = read_judgement(layout.judgement("polite", "calm", sample))
    assert isinstance(made, Comparison)
    return made


def without_times(made: Comparison) -> dict[str, Any]:
    """What a comparison holds but for when and how fast it was made."""
    values = made.values()
    for one in values["orders"]:
        del one["timing"], one["attempts"]
    return {key: value for key, value in values.items() if key != "sha256"}


@pytest.mark.parametrize("model", ["judge-x", "judge-first"])
def test_two_answers_are_compared_in_both_orders_and_a_lost_judgement_comes_back(house: House, model: str) -> None:
    api = Api()
    layout, answers = compared(house, api, *SAMPLES, keys={"model": model})
    assert answers == ["ok\n"] * len(SAMPLES)
    assert len(api.requests) == 2 * len(SAMPLES)
    assert VARIANTS["calm"]["text"] not in json.dumps(api.requests)
    hashes = {}
    for sample in SAMPLES:
        made, ours, theirs = pair(layout, sample), trajectory(layout, "calm", sample), trajectory(layout, "control", sample)  # fmt: skip
        assert [one.request in api.requests for one in made.orders] == [True, True]
        shown = [one.request["messages"][-1]["content"] for one in made.orders]
        for text, (first, second) in zip(shown, [(ours, theirs), (theirs, ours)], strict=True):
            assert text.endswith(
                f"<answer A>\n{first.completion}\n</answer>\n\n<answer B>\n{second.completion}\n</answer>"
            )
        digits = [int(one.completion[-1]) for one in (ours, theirs)]
        assert made.value == (0.5 if model == "judge-first" else 0.5 + 0.5 * ((digits[0] > digits[1]) - (digits[0] < digits[1])))  # fmt: skip
        assert (made.compare_with, made.compared_id, made.request) == ("control", sample, {})
        for variant, one in (("calm", ours), ("control", theirs)):
            assert one.state is not None
            hashes[variant, sample] = one.state.hashes
        assert check_judgement(layout.judgement("polite", "calm", sample), "polite", "calm", sample, hashes) == []
    assert len({pair(layout, sample).value for sample in SAMPLES}) >= (2 if model == "judge-x" else 1)
    # The hash of the answer that it is compared with counts as well.
    other = {**hashes, ("control", SAMPLES[0]): hashes["control", SAMPLES[1]]}
    path = layout.judgement("polite", "calm", SAMPLES[0])
    assert "another answer than that of control" in check_judgement(path, "polite", "calm", SAMPLES[0], other)[0]
    before = without_times(pair(layout))
    path.unlink()
    compared(house, api, SAMPLES[0], keys={"model": model})
    assert {**without_times(pair(layout)), "orders": None} == {**before, "orders": None}
    for one, earlier in zip(without_times(pair(layout))["orders"], before["orders"], strict=True):
        assert {**one, "worker_id": None} == {**earlier, "worker_id": None}


def test_nonsense_in_one_order_leaves_the_pair_without_a_value(house: House) -> None:
    reply = {"message": {"role": "assistant", "content": '{"value": "both"}'}, "finish_reason": "stop"}
    api = Api()
    api.faults = [{"kind": "raw", "body": json.dumps({"choices": [reply]})}]
    layout, answers = compared(house, api, SAMPLES[0])
    assert answers == ["ok\n"]
    assert len(api.requests) == 1  # the other order would make no value
    made = pair(layout)
    assert (made.value, made.error, [one.value is None for one in made.orders]) == (None, None, [True])
    assert "the value 'both' is not one of" in (made.unusable or "")


def test_an_order_without_a_reply_ends_the_judgement(house: House) -> None:
    api = Api()
    api.faults = [{"kind": "status", "status": 500, "times": 3}]
    layout, (answer,) = compared(house, api, SAMPLES[0])
    assert "all 3 attempts failed" in answer
    assert not layout.judgement("polite", "calm", SAMPLES[0]).exists()
    api.faults = [{"kind": "status", "status": 500, "times": 3}]
    layout, (answer,) = compared(house, api, SAMPLES[0], generation={"allowed_failures": 0.25})
    assert answer == "ok\n"
    assert len(pair(layout).orders) == 1
    assert "all 3 attempts failed" in (pair(layout).error or "")


@pytest.mark.parametrize("variant", ["calm", "control"])
def test_a_pair_without_one_of_its_answers_costs_no_call(house: House, variant: str) -> None:
    api = Api()
    layout, _ = compared(house, api, SAMPLES[0])
    assert requests_without_an_answer(house, api, layout, variant) == []
    assert (pair(layout).error, pair(layout).value) == ("no server answered", None)


def requests_without_an_answer(house: House, api: Api, layout: Layout, variant: str) -> list[Any]:
    """Take the answer of a variant away and ask for the judgement again; return the requests to the judge."""
    state = layout.pair(variant, SAMPLES[0]) / "agent_state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "error": "no server answered", "response": {}}))
    api.requests.clear()

    async def again() -> str:
        async with house.pool():
            return await house.send(["judge", "one", "polite", "calm", SAMPLES[0]])

    assert asyncio.run(again()) == "ok\n"
    return api.requests


def test_both_orders_count_in_the_budget(house: House) -> None:
    prices = {"judge-x": {"input": 0.0, "output": 1e6}}  # a token costs 1, a call at most 64 and then 32
    workers = {"prices": prices, "max_cost": 100.0}
    layout, answers = compared(house, Api(), *SAMPLES[:2], keys={"max_tokens": 64}, workers=workers)
    assert [answer == "ok\n" for answer in answers] == [True, False]
    assert pair(layout).cost == 64.0
    assert ApiCalls(layout.api_calls).spent == 64.0


def test_a_reply_to_one_order_is_not_paid_for_again_where_the_other_fails(house: House) -> None:
    api, prices = Api(), {"judge-x": {"input": 0.0, "output": 1e6}}
    keys = {"max_tokens": 64}
    for limit, calls in ((90.0, 1), (1000.0, 2)):  # the first reply costs 32, the next call at most 64
        workers = {"prices": prices, "max_cost": limit}
        layout, (answer,) = compared(house, api, SAMPLES[0], keys=keys, workers=workers)
        assert (answer == "ok\n") is (calls == 2)
        assert len(api.requests) == calls
    assert [one.request for one in pair(layout).orders] == api.requests
    assert (pair(layout).cost, ApiCalls(layout.api_calls).spent) == (64.0, 64.0)
    path = layout.judgement("polite", "calm", SAMPLES[0])
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    # Another question is asked in full.
    path.unlink()
    compared(house, api, SAMPLES[0], keys=keys, workers=workers)
    assert len(api.requests) == 4


def test_a_reply_to_another_request_is_not_taken(house: House) -> None:
    api, prices = Api(), {"judge-x": {"input": 0.0, "output": 1e6}}
    for limit, rubric, calls in ((90.0, "Polite?", 1), (1000.0, "Friendly?", 3)):
        keys = {"max_tokens": 64, "rubric": rubric}
        layout, _ = compared(house, api, SAMPLES[0], keys=keys, workers={"prices": prices, "max_cost": limit})
        assert len(api.requests) == calls
    assert [one.request for one in pair(layout).orders] == api.requests[1:]


def test_judgements_count_in_the_budget_of_the_experiment(house: House) -> None:
    api = Api()
    prices = {"judge-x": {"input": 0.0, "output": 1e6}}  # a token costs 1, a call at most 64 and then 32
    pairs = [("calm", sample) for sample in SAMPLES]
    layout, answers = judged(house, api, *pairs, keys={"max_tokens": 64}, workers={"prices": prices, "max_cost": 100.0})
    assert [answer == "ok\n" for answer in answers] == [True, True, False, False]
    assert "workers.max_cost = 100 leaves no room for another call: 64 are spent" in answers[2]
    calls = ApiCalls(layout.api_calls)
    assert (calls.spent, len(calls), calls.models) == (64.0, 2, {})  # the answers are not this API's
    assert read(layout).cost == 32.0


def test_a_trajectory_without_an_answer_costs_no_call(house: House) -> None:
    api = Api()
    layout, _ = judged(house, api, ("calm", SAMPLES[0]))
    assert requests_without_an_answer(house, api, layout, "calm") == []
    assert read(layout).error == "no server answered"


def test_an_unknown_judge_is_named(house: House) -> None:
    async def scenario() -> str:
        async with house.pool():
            house.add("one")
            return await house.send(["judge", "one", "polite", "calm", SAMPLES[0]])

    assert "graders has no judge 'polite'" in asyncio.run(scenario())


def test_a_judge_that_the_run_serves_has_a_turn_after_the_answers(house: House) -> None:
    pairs = [(variant, sample) for sample in SAMPLES for variant in VARIANTS]

    async def scenario() -> Layout:
        async with house.pool():
            layout = house.add("one", graders=["number", judge(label="polite", endpoints=[])])
            house.add_judge("one", "polite", "judge-x")
            assert await house.ask("generate", "one", *pairs[0]) == "ok\n"
            house.stub("a").gate.clear()  # an answer is being generated, so that the judge has to wait
            answers = [asyncio.create_task(house.ask("generate", "one", *pair)) for pair in pairs[1:]]
            await until(lambda: len(house.stub("a").requests) == len(pairs))
            first = asyncio.create_task(house.send(["judge", "one", "polite", *pairs[0]]))
            await until(lambda: any(fleet.status()["waiting_for_turn"] for fleet in house.fleets))
            assert house.diary == ["start vllm a"]
            house.stub("a").gate.set()
            assert await asyncio.gather(*answers, first) == ["ok\n"] * len(pairs)
            await house.remain("judge")  # which keeps vLLM
            rest = [house.send(["judge", "one", "polite", *pair]) for pair in pairs[1:]]
            assert await asyncio.gather(*rest) == ["ok\n"] * len(rest)
            assert house.diary == ["start vllm a", "stop vllm a", "start vllm judge-x"]
            await house.remain()
            await until(lambda: house.diary[-1] == "stop vllm judge-x")
            return layout

    layout = asyncio.run(scenario())
    assert house.most["vllm"] == 1
    assert house.stub("judge-x").paths == {"/v1/chat/completions"}
    asked = house.stub("judge-x").requests
    assert len(asked) == len(pairs)
    assert VARIANTS["calm"]["text"] not in json.dumps(asked)
    for variant, sample in pairs:
        made, conversation = read(layout, variant, sample), trajectory(layout, variant, sample)
        assert made.request in asked
        assert (made.request["temperature"], made.request["model"]) == (0.0, "judge-x")
        assert made.value is (conversation.completion[-1] in "02468")
        assert (made.worker_id, made.cost, made.error) == ("vllm-0", None, None)
    assert not layout.api_calls.exists()


def test_a_judge_whose_servers_fail_stops_no_answer(house: House) -> None:
    async def scenario() -> list[str]:
        async with house.pool():
            house.add("one", graders=["number", judge(label="polite", endpoints=[])])
            house.add_judge("one", "polite", "judge-x")
            house.broken.add("judge-x")
            jobs = [["generate", "one", "calm", sample] for sample in SAMPLES]
            found = [await house.send(jobs[0])]
            found += [await house.send(["judge", "one", "polite", "calm", SAMPLES[0]]) for _ in range(2)]
            return [*found, await house.send(jobs[1])]

    generated, refused, again, other = asyncio.run(scenario())
    assert generated == other == "ok\n"
    assert "broken" in refused
    assert again == refused


@pytest.mark.parametrize("raised", [PlacementError, ResolveError])
def test_an_error_about_a_judge_s_servers_names_the_judge_s_key(
    house: House, monkeypatch: pytest.MonkeyPatch, raised: type[ValueError]
) -> None:
    def refuse(*_: object) -> None:
        raise raised("model.source: the model does not fit")

    async def scenario() -> str:
        async with house.pool():
            house.add("one", graders=["number", judge(label="polite", endpoints=[])])
            house.add_judge("one", "polite", "judge-x")
            await house.send(["generate", "one", "calm", SAMPLES[0]])
            monkeypatch.setattr("server.pool.served.with_placement", refuse)
            return await house.send(["judge", "one", "polite", "calm", SAMPLES[0]])

    assert asyncio.run(scenario()) == "graders.polite.model: the model does not fit\n"
