"""The tools of an agent: their schemas, and their calls with limits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest

from emoprobe.config.science.conversation import Conversation
from emoprobe.conversations.example_tools import calculator
from emoprobe.conversations.tool_process import BEGINS
from emoprobe.conversations.tool_schemas import ToolError, tool_schemas
from emoprobe.conversations.tools import MOST_CALLS, Interruption, call_tool, call_tools
from tests.workspace import wait_for

NAMES = ("calculator", "hang", "fail", "chatter", "large", "greedy", "leave", "parent", "exits", "stubborn")


def settings(*names: str, **limits: Any) -> Conversation:
    return Conversation(kind="agent", tools=[f"tests.tools:{name}" for name in names or NAMES], **limits)


@pytest.mark.parametrize(
    ("name", "arguments", "limits", "content"),
    [
        ("calculator", {"expression": "2 + 3"}, {}, "5"),
        ("calculator", {"expression": "2 + x"}, {}, "error: ValueError: invalid literal for int() with base 10: ' x'"),
        (
            "calculator",
            {"sum": "2"},
            {},
            "error: TypeError: calculator() got an unexpected keyword argument 'sum'",
        ),
        ("hang", {}, {"tool_timeout": 0.2}, "error: hang did not return within 0.2 s"),
        ("stubborn", {}, {"tool_timeout": 0.2}, "error: stubborn did not return within 0.2 s"),
        ("fail", {}, {}, "error: FileNotFoundError: [Errno 2] No such file: 'data.csv'"),
        ("chatter", {"text": "5"}, {}, '{"said": "5"}'),
        ("large", {}, {"tool_output": 100}, "x" * 100 + "\n[… 9999900 of 10000000 characters left out]"),
        ("greedy", {"mebibytes": 64}, {"tool_memory": 128}, str(64 << 20)),
        ("greedy", {"mebibytes": 512}, {"tool_memory": 128}, "error: MemoryError: more than 128 MiB"),
        ("leave", {}, {}, "error: leave ended without a result (exit status 3)"),
        ("exits", {}, {}, "error: SystemExit: bye"),
        ("search", {}, {}, f"error: there is no tool 'search'; the tools are {', '.join(NAMES)}"),
        ("calculator", '{"expression": "2 +', {}, "error: the arguments of calculator are no JSON object"),
        ("calculator", "[2, 3]", {}, "error: the arguments of calculator are no JSON object"),
    ],
)
def test_every_call_has_a_result_that_the_model_can_read(
    name: str, arguments: Any, limits: dict[str, Any], content: str
) -> None:
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    assert call_tool(settings(**limits), name, text) == content


def test_a_tool_gets_no_secret_and_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "secret")
    mark = json.dumps({"text": str(os.getpid())})
    results = {call_tool(settings(), "parent", mark) for _ in range(3)}
    call_tool(settings(tool_timeout=0.2), "hang", mark)
    wait_for(lambda: not sleepers(), what="the end of what the tools started")
    (result,) = results  # sets, too, are in the same order each time
    assert json.loads(result)[0] == "None"
    assert sorted(json.loads(result)[1:]) == ["a", "b", "c"]


def sleepers() -> str:
    """Return the processes that the tools of this test started and left behind."""
    pattern = rf"^sleep 1000\.{os.getpid()}$"
    return subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True).stdout


def test_calls_of_one_message_are_answered_in_their_order() -> None:
    calls = [
        {"id": f"c{number}", "function": {"name": "calculator", "arguments": f'{{"expression": "{number}"}}'}}
        for number in range(2)
    ]
    found = call_tools(settings(), {"role": "assistant", "content": "", "tool_calls": calls})
    assert [(message["role"], message["name"], message["tool_call_id"]) for message in found] == [
        ("tool", "calculator", "c0"),
        ("tool", "calculator", "c1"),
    ]
    assert [message["content"] for message in found] == ["0", "1"]
    many = [{"id": "c", "function": {"name": "nothing"}}] * (MOST_CALLS + 1)
    *rest, last = call_tools(settings(), {"tool_calls": many})
    assert all("no tool" in message["content"] for message in rest)
    assert last["content"] == f"error: more than {MOST_CALLS} calls in one message"


def test_calls_that_nobody_waits_for_are_not_made() -> None:
    interruption, call = Interruption(), {"id": "c", "function": {"name": "hang", "arguments": "{}"}}
    threading.Timer(0.5, interruption.end).start()
    # The first one is ended, long before its time is over, and no other one begins.
    assert len(call_tools(settings(tool_timeout=3600), {"tool_calls": [call] * 3}, interruption)) == 1
    assert call_tools(settings(tool_timeout=3600), {"tool_calls": [call] * 3}, interruption) == []


def test_a_tool_ends_after_its_time_where_nobody_is_left_to_end_it() -> None:
    mark = str(os.getpid())
    asked = {
        "reference": "tests.tools:hang",
        "arguments": {"text": mark},
        "timeout": 0.1,
        "memory": 512,
        "characters": 9,
    }
    line = [sys.executable, "-m", "emoprobe.conversations.tool_process"]
    called = subprocess.run(
        line, input=json.dumps(asked), capture_output=True, text=True, start_new_session=True, timeout=60
    )
    assert (called.returncode, called.stdout) == (-signal.SIGKILL, BEGINS)
    wait_for(lambda: not sleepers(), what="the end of what the tool started")


@pytest.mark.parametrize(
    ("expression", "value"),
    [("(12 - 3) * 2.5", "22.5"), ("1,234 + 1", "1235"), ("-7 // 2", "-4"), ("2 ** 3 % 5", "3"), ("0.1 + 0.2", "0.3")],
)
def test_the_calculator_computes(expression: str, value: str) -> None:
    assert calculator(expression) == value


def test_the_calculator_runs_no_code() -> None:
    with pytest.raises(ValueError, match="only numbers"):
        calculator("__import__('os').getpid()")


def test_tools_are_described_by_signature_and_docstring() -> None:
    (schema,) = tool_schemas(["tests.tools:calculator"])
    assert schema == {
        "type": "function",
        "function": {
            "name": "calculator",
            "description": "Compute a sum.",
            "parameters": {
                "type": "object",
                "properties": {
                    "expression": {"type": "string", "description": "The summands, such as `2 + 3`."},
                },
                "required": ["expression"],
            },
        },
    }
    with pytest.raises(ToolError, match=r"conversation.tools.1: tests.tools:undescribed cannot be described"):
        tool_schemas(["tests.tools:calculator", "tests.tools:undescribed"])
    with pytest.raises(ToolError, match=r"conversation.tools.0: tests.tools:nothing cannot be imported"):
        tool_schemas(["tests.tools:nothing"])
