"""Tools of an agent: their description for the model, and the results of its calls."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

from emoprobe.config.science.conversation import Conversation, tool_name
from emoprobe.conversations.tool_process import BEGINS
from emoprobe.conversations.tool_schemas import ToolError
from emoprobe.results.trajectory import Message

# What a tool gets of the environment; the rest may be secret.
FORWARDED = ("PATH", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH")
MOST_CALLS = 32  # in one message
START_SECONDS = 120.0  # to start the process and import the tool's module


class Interruption:
    """Ends the call of a tool that another thread waits for, and all later ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._group: int | None = None
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether `end` was called."""
        return self._ended

    def end(self) -> None:
        """End the running call now, and each later one when it begins."""
        with self._lock:
            self._ended = True
            self._kill()

    @contextlib.contextmanager
    def of(self, group: int) -> Iterator[None]:
        """Let `end` kill a process group inside the block."""
        with self._lock:
            self._group = group
            if self._ended:
                self._kill()
        try:
            yield
        finally:
            with self._lock:
                self._group = None

    def _kill(self) -> None:
        if self._group is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._group, signal.SIGKILL)


@cache
def described_tools(references: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return the tools of an agent as OpenAI's API takes them, see `tool_schemas`, which another process runs.

    It takes seconds, as transformers imports torch, which this process would keep.

    Raises:
        ToolError: a function cannot be imported, or lacks a type hint or the description of an argument.
    """
    code = "import sys; from emoprobe.conversations.tool_schemas import write; write(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *references], capture_output=True, text=True, env=os.environ | _paths()
    )
    last = done.stdout.rstrip("\n").rpartition("\n")[2]  # modules may print when they are imported
    answer = json.loads(last or json.dumps({"error": done.stderr[-500:]}))
    if "error" in answer:
        raise ToolError(answer["error"])
    schemas: list[dict[str, Any]] = answer["schemas"]
    return schemas


def call_tools(settings: Conversation, answer: Message, interruption: Interruption | None = None) -> list[Message]:
    """Return the results of the calls in an answer, in their order, one message each. No call raises an error.

    Args:
        settings: the tools and their limits.
        answer: the assistant's message.
        interruption: ends the calls when nobody waits for their results any more; None: nothing does.
    """
    messages: list[Message] = []
    for place, call in enumerate(answer["tool_calls"]):
        if interruption is not None and interruption.ended:  # nobody waits for the results
            break
        name = str(call["function"]["name"])
        arguments = call["function"].get("arguments") or "{}"
        if place < MOST_CALLS:
            content = call_tool(settings, name, arguments, interruption)
        else:
            content = f"error: more than {MOST_CALLS} calls in one message"
        messages.append({"role": "tool", "name": name, "tool_call_id": call["id"], "content": content})
    return messages


def call_tool(settings: Conversation, name: str, arguments: str, interruption: Interruption | None = None) -> str:
    """Return the text of a tool's result, or of the error that the model is shown in its place.

    The call has a process of its own, in an empty folder, and leaves neither behind. The order of sets is the same in
    all calls.

    Args:
        settings: the tools and their limits.
        name: of the tool, as the model wrote it.
        arguments: as the model wrote them, a JSON object.
        interruption: see `call_tools`.
    """
    known = {tool_name(reference): reference for reference in settings.tools}
    if name not in known:
        return f"error: there is no tool {name!r}; the tools are {', '.join(known)}"
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        return f"error: the arguments of {name} are no JSON object"
    asked = {
        "reference": known[name],
        "arguments": given,
        "timeout": settings.tool_timeout,
        "memory": settings.tool_memory,
        "characters": settings.tool_output,
    }
    code, output = _run(json.dumps(asked), settings.tool_timeout, interruption or Interruption())
    if code is None:
        return f"error: {name} did not return within {settings.tool_timeout:g} s"
    try:
        result = json.loads(output)
    except ValueError:
        ended = f"signal {-code}" if code and code < 0 else f"exit status {code}"
        return f"error: {name} ended without a result ({ended})"
    content: str = result["content"]
    left_out = result["length"] - len(content)
    note = f"\n[… {left_out} of {result['length']} characters left out]" if left_out else ""
    return ("error: " if result["failed"] else "") + content + note


def _run(asked: str, timeout: float, interruption: Interruption) -> tuple[int | None, str]:
    """Run the process of a call; return its exit status, None where its time was over, and what it wrote."""
    environment = {name: os.environ[name] for name in FORWARDED if name in os.environ}
    environment |= {**_paths(), "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    expired = threading.Event()
    with tempfile.TemporaryDirectory(prefix="emoprobe-tool-", ignore_cleanup_errors=True) as folder:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "emoprobe.conversations.tool_process"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
            cwd=folder, env=environment | {"HOME": folder, "TMPDIR": folder}, start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None

        def end() -> None:
            expired.set()
            os.killpg(process.pid, signal.SIGKILL)

        with interruption.of(process.pid):
            timer = threading.Timer(START_SECONDS, end)
            timer.start()
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(asked)
                process.stdin.flush()
            with process.stdout:
                output = process.stdout.readline()
                if output == BEGINS:
                    timer.cancel()
                    timer = threading.Timer(timeout, end)
                    timer.start()
                    # A process that the tool started may hold the output open; the timer ends it as well.
                    output = process.stdout.read()
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            timer.cancel()
            timer.join()
            # What the tool started ends with it; until it is waited for, its number is no other process's.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
    return (None if expired.is_set() else code), output


def _paths() -> dict[str, str]:
    """Return the variable by which another interpreter imports the same modules."""
    return {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
