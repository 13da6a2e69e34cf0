"""Conversations of agents and of functions, from a client's request to the files."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emoprobe.analysis.trajectory_table import trajectory_table
from emoprobe.config.files import parse_config
from emoprobe.conversations.rendering import Renderer
from emoprobe.conversations.requests import request_seed, turn_seed
from emoprobe.conversations.tools import described_tools
from emoprobe.explorer.conversations import read_conversation
from emoprobe.report.summary import records
from emoprobe.results.layout import Layout
from emoprobe.results.trajectory import AgentState, Message, Sample
from emoprobe.results.verification import check_trajectory
from server.pool.address import PoolAddress
from server.pool.jobs import FUNCTIONS
from server.pool.launch import Share, command
from tests.byte_tokenizer import TOOL_CHATML
from tests.conftest import StubServer
from tests.copies.copy import Order, launch
from tests.server.pool.house import SECONDS, House, trajectory, until
from tests.server.pool.test_jobs import FAST, REFUSAL, SAMPLES, ask_all, bytes_of, made_and_made_again
from tests.stub_server import tool_call
from tests.workspace import ROOT

PAIR = ("calm", SAMPLES[0])
AGENT = {
    "kind": "agent",
    "tools": ["tests.tools:calculator", "tests.tools:hang", "tests.tools:fail"],
    "tool_parser": "hermes",
    "max_turns": 4,
}


def agent(house: House, **sections: Any) -> Layout:
    layout = house.add("one", **{"conversation": AGENT, **sections})
    model = house.folder / "models/a"
    (model / "chat_template.jinja").write_text(TOOL_CHATML)
    house.stub("a").tokenizer = model / "tokenizer.json"
    sample = Sample.read(layout.sample(SAMPLES[0]))
    sample.model_copy(update={"answer": "1"}).write(layout.sample(SAMPLES[0]))
    return layout


def answered(layout: Layout) -> tuple[list[Message], AgentState]:
    found = trajectory(layout, *PAIR)
    assert found.state is not None
    assert check_trajectory(layout.pair(*PAIR), *PAIR).problems == []
    return found.messages, found.state


def test_an_agent_goes_on_with_the_results_of_its_tools_until_it_answers(house: House) -> None:
    layout = agent(house, capture={"enabled": True, "positions": ["turn1.response_mean", "response_mean"]})
    assert ask_all(house, [("generate", "one", *PAIR), ("capture", "one", *PAIR)]) == ["ok\n", "ok\n"]
    messages, state = answered(layout)
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert messages[2:] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [
                {
                    "id": "call01001",
                    "type": "function",
                    "function": {"name": "calculator", "arguments": json.dumps({"expression": "0 + 1"})},
                }
            ],
        },
        {"role": "tool", "name": "calculator", "tool_call_id": "call01001", "content": "1"},
        {"role": "assistant", "content": "Answer: 1"},
    ]
    assert state.earlier_turns is not None
    (earlier,) = state.earlier_turns
    *requests, capture = house.stub("a").requests
    first = request_seed(42, SAMPLES[0])
    assert [request["seed"] for request in requests] == [first, turn_seed(first, 2)]
    names = [tool["function"]["name"] for tool in requests[0]["tools"]]
    assert names == ["calculator", "hang", "fail"]
    assert state.request["tools"] == requests[0]["tools"]
    assert all(name in bytes_of(earlier.prompt_token_ids or []) for name in names)
    assert (earlier.finish_reason, earlier.correct, state.finish_reason, state.turn) == ("tool_calls", None, "stop", 2)
    assert (earlier.tool_seconds or 0) > 0
    assert state.tool_seconds is None
    assert capture["prompt"] == state.token_ids
    turns = {
        number: bytes_of(capture["prompt"][start:end]) for number, (start, end) in capture["ndif"]["turns"].items()
    }
    said = tool_call("calculator", {"expression": "0 + 1"})
    assert turns == {"1": f"{said}<|im_end|>", "2": "Answer: 1<|im_end|>"}
    config = parse_config({"conversation": AGENT, "variants": {"control": {}, "calm": {"text": "It is a quiet day."}}})
    (row,) = records(trajectory_table(layout.root, [PAIR], config))
    assert (row["correct"], row["turns"], row["correct_first"]) == (True, 2, True)
    shown = read_conversation(layout.pair(*PAIR), row).messages
    assert shown[2].calls == (("calculator", messages[2]["tool_calls"][0]["function"]["arguments"]),)
    assert (shown[3].role, shown[3].text) == ("tool", "1")


def test_an_agent_s_conversation_is_made_again_byte_for_byte(house: House) -> None:
    assert len(made_and_made_again(house, agent(house), PAIR)) == 1


@pytest.mark.parametrize("kind", ["reset", "status", "truncated"])
def test_a_server_that_dies_after_a_tool_was_called_costs_that_turn_alone(house: House, kind: str) -> None:
    layout = agent(house, workers={"count": 2})
    fault = {"kind": kind, "status": 503, "match": "tool_call_id"}
    assert ask_all(house, [("generate", "one", *PAIR)], fault) == ["ok\n"]
    _, state = answered(layout)
    assert [len(turn.attempts) for turn in (*(state.earlier_turns or []), state)] == [1, 2]
    assert len(house.stub("a").requests) == 3


def test_tools_are_described_while_the_server_starts_and_the_renderer_loads(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent(house, generation={"engine": {"max_model_len": 4096}})
    loaded, load = threading.Event(), Renderer.load

    def loading(*arguments: Any) -> Renderer:
        loaded.set()
        return load(*arguments)

    def describing(tools: tuple[str, ...]) -> list[dict[str, Any]]:
        assert loaded.wait(SECONDS)
        assert house.diary == ["start vllm a"]
        return described_tools(tools)

    monkeypatch.setattr("server.pool.served.Renderer.load", loading)
    monkeypatch.setattr("server.pool.run.described_tools", describing)
    assert ask_all(house, [("generate", "one", *PAIR)]) == ["ok\n"]


@pytest.mark.parametrize("gone", ["pool", "client"])
def test_a_running_tool_ends_with_the_job_that_waits_for_it(house: House, gone: str) -> None:
    agent(house, conversation=AGENT | {"tool_timeout": 3600})
    mark = f"{os.getpid()}{'12'[gone == 'pool']}"
    house.stub("a").agent = lambda _: tool_call("hang", {"text": mark}) + tool_call("hang", {"text": mark})

    def running() -> bool:
        return subprocess.run(["pgrep", "-f", rf"^sleep 1000\.{mark}$"], stdout=subprocess.DEVNULL).returncode == 0

    async def scenario() -> None:
        async with house.pool():
            job = asyncio.create_task(house.ask("generate", "one", *PAIR))
            await until(running)
            if gone == "client":
                job.cancel()
                await until(lambda: not running())
        await asyncio.gather(job, return_exceptions=True)
        await until(lambda: not running())

    asyncio.run(scenario())
    # The second call of the message has ended, too: all threads are free.
    threads = FUNCTIONS._max_workers
    together = threading.Barrier(threads)
    waiting = [FUNCTIONS.submit(together.wait, SECONDS) for _ in range(threads)]
    assert sorted(each.result() for each in waiting) == list(range(threads))


def test_calls_that_fail_are_answered_and_the_conversation_goes_on(house: House) -> None:
    layout = agent(house, conversation=AGENT | {"tool_timeout": 0.2})
    calls = [("hang", {"text": "5"}), ("fail", {}), ("search", {}), ("calculator", {"expression": "2 + 2"})]
    house.stub("a").agent = lambda messages: (
        "Answer: 1" if messages[-1]["role"] == "tool" else "So: " + "\n".join(tool_call(*call) for call in calls)
    )
    assert ask_all(house, [("generate", "one", *PAIR)]) == ["ok\n"]
    messages, _ = answered(layout)
    assert messages[2]["content"] == "So: "
    assert [(message["tool_call_id"], message["content"]) for message in messages[3:-1]] == [
        ("call01001", "error: hang did not return within 0.2 s"),
        ("call01002", "error: FileNotFoundError: [Errno 2] No such file: 'data.csv'"),
        ("call01003", "error: there is no tool 'search'; the tools are calculator, hang, fail"),
        ("call01004", "4"),
    ]


def test_an_agent_that_never_answers_has_no_answer(house: House) -> None:
    layout = agent(house, conversation=AGENT | {"max_turns": 2})
    house.stub("a").agent = lambda _: "Answer: 1\n" + tool_call("calculator", {"expression": "1"})
    assert ask_all(house, [("generate", "one", *PAIR)]) == ["ok\n"]
    messages, state = answered(layout)
    assert [message["role"] for message in messages[2:]] == ["assistant", "tool", "assistant"]
    assert messages[-1]["tool_calls"][0]["id"] == "call02001"
    assert (state.finish_reason, state.turn) == ("tool_calls", 2)
    found = trajectory(layout, *PAIR)
    assert (found.completion, found.is_unfinished, found.failure) == ("", True, None)
    row = trajectory_table(layout.root, [PAIR]).iloc[0]
    assert (row["correct"], row["extraction"], row["turns"]) == (False, "none", 2)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [("required", "required"), ("calculator", {"type": "function", "function": {"name": "calculator"}})],
)
def test_the_first_request_alone_asks_for_a_call(house: House, choice: str, sent: Any) -> None:
    layout = agent(house, conversation=AGENT | {"tool_choice": choice})
    assert ask_all(house, [("generate", "one", *PAIR)]) == ["ok\n"]
    _, state = answered(layout)
    (earlier,) = state.earlier_turns or []
    first, second = house.stub("a").requests
    assert first["tool_choice"] == earlier.request["tool_choice"] == sent
    assert "tool_choice" not in second.keys() | state.request.keys()
    assert second["tools"] == first["tools"]


def test_a_server_without_the_renderer_s_prompt_is_refused(house: House) -> None:
    agent(house, **FAST)
    (house.folder / "models/b").mkdir()
    for file in (house.folder / "models/a").iterdir():
        (house.folder / "models/b" / file.name).write_bytes(file.read_bytes())
    (house.folder / "models/b/chat_template.jinja").write_text(TOOL_CHATML.replace("# Tools", "# Functions"))
    house.stub("a").tokenizer = house.folder / "models/b/tokenizer.json"
    (reason,) = ask_all(house, [("generate", "one", *PAIR)])
    assert "the server answered another prompt than was sent" in reason


def insist(messages: list[Message]) -> list[Message] | str | None:
    """Ask twice, then end."""
    asked = [message for message in messages if message["role"] == "user"]
    messages.clear()  # a function has a copy
    if len(asked) == 1:
        return "Sure?"
    if len(asked) == 2:
        return [{"role": "user", "content": "Again."}, {"role": "assistant", "content": "I am"}]
    return None


def test_a_function_says_how_the_user_goes_on(house: House) -> None:
    variants = {"control": {}, "calm": {"text": "It is a quiet day.", "turn": 2}}
    layout = house.add("one", conversation={"kind": f"{__name__}:insist"}, variants=variants)
    assert ask_all(house, [("generate", "one", *PAIR)]) == ["ok\n"]
    messages, state = answered(layout)
    user = [message["content"] for message in messages if message["role"] == "user"]
    assert user[1:] == ["It is a quiet day.\n\nSure?", "Again."]
    assert messages[-1]["content"].startswith("I amI think")
    assert (state.turn, state.prefill) == (3, 4)
    assert state.message_spans is not None
    assert state.message_spans.prefix == (3, 0, len("It is a quiet day."))


def test_a_function_that_never_returns_does_not_keep_the_pool(
    house: House, stub: Callable[..., StubServer], tmp_path: Path
) -> None:
    reached = tmp_path / "reached"
    code = (
        f"import pathlib, time\ndef wait(messages):\n    pathlib.Path({str(reached)!r}).touch()\n    time.sleep(3600)\n"
    )
    (tmp_path / "forever.py").write_text(code)
    workers = {"endpoints": [stub().url], "model_name": "stub"}
    house.add("one", conversation={"kind": "forever:wait"}, workers=workers)
    arguments = [*map(str, (house.address, house.plan, house.results, tmp_path, house.owner.pid))]
    pool = launch(Order("server.pool", arguments, str(ROOT), dict(os.environ)), 1, 2)

    async def scenario() -> None:
        await until(lambda: PoolAddress.read(house.address) is not None)
        job = asyncio.create_task(house.ask("generate", "one", *PAIR))
        await until(reached.exists)
        house.owner.kill()
        house.owner.wait()
        await asyncio.gather(job, return_exceptions=True)

    asyncio.run(scenario())
    assert pool.wait(SECONDS) == 0


def nothing(messages: list[Message]) -> list[Message]:
    """Return what is no turn of the user."""
    return messages[:1]


def test_a_function_that_returns_something_else_fails_the_job_with_its_name(house: House) -> None:
    house.add("one", conversation={"kind": f"{__name__}:nothing"})
    (reason,) = ask_all(house, [("generate", "one", *PAIR)])
    assert f"conversation.kind: {__name__}:nothing must return the user's message" in reason
    assert "but returned messages with the roles system" in reason


def test_a_turn_of_an_agent_that_no_server_answers_makes_a_record_of_the_error(house: House) -> None:
    layout = agent(house, generation={"allowed_failures": 0.25}, **FAST)
    assert ask_all(house, [("generate", "one", *PAIR)], REFUSAL | {"match": "tool_call_id"}) == ["ok\n"]
    messages, state = answered(layout)
    assert (state.error is None, state.turn, messages[-1]) == (False, 2, {"role": "assistant", "content": ""})
    assert messages[-2]["role"] == "tool"


def test_servers_of_agents_are_started_with_their_parser_and_shared_by_no_other(house: House) -> None:
    agent(house)
    house.add("two")
    share = Share([0], [])
    lines = {}
    for name in ("one", "two"):
        config = parse_config(json.loads((house.plan / f"{name}.json").read_text()))
        lines[name] = command("vllm", config, "a", "a", share, 8000, house.results)
    start = lines["one"].index("--enable-auto-tool-choice")
    assert lines["one"][start : start + 3] == ["--enable-auto-tool-choice", "--tool-call-parser", "hermes"]
    assert lines["two"] == lines["one"][:start] + lines["one"][start + 3 :]
    jobs = [("generate", name, *PAIR) for name in ("one", "two")]
    assert ask_all(house, jobs) == ["ok\n", "ok\n"]
    assert house.diary.count("start vllm a") == 2
