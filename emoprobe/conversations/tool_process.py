"""Run one call of a tool, in a process of its own: `python -P -m emoprobe.conversations.tool_process`.

It reads a JSON object from its input and writes one to its output. What the tool itself prints is dropped.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

from emoprobe.functions import load_function

MIB = 1 << 20
LATE_SECONDS = 5.0  # after the limit of a call: who waited for it should have ended it by then
BEGINS = "the call begins\n"  # first line of the output, once the tool's module is imported; the time counts from here
# Folders of a machine, of which a message keeps the last part alone, and addresses in memory.
_PATH = re.compile(r"(?<![\w/.])(?:/[^/\s'\":,()]+)+/(?=[^/\s'\":,()])")
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def main() -> None:
    """Call the tool and write its result, or the error that it raised."""
    asked = json.load(sys.stdin)
    answer = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    with os.fdopen(answer, "w", encoding="utf-8") as output:
        try:
            function = load_function("tool", asked["reference"], ValueError)
            print(BEGINS, end="", file=output, flush=True)
            _end_after(asked["timeout"] + LATE_SECONDS)
            content, failed = _called(function, asked), False
        except MemoryError:
            content, failed = f"MemoryError: more than {asked['memory']} MiB", True
        except BaseException as error:  # exits, too, are the tool's
            content, failed = _without_places(f"{type(error).__name__}: {error}"), True
        shown = content[: asked["characters"]].encode("utf-8", "replace").decode()
        json.dump({"content": shown, "length": len(content), "failed": failed}, output)
    os.killpg(0, signal.SIGKILL)  # a process that the tool forked may hold the output open


def _end_after(seconds: float) -> None:
    """End the tool and what it started after a time: whoever waited for it may have been killed."""
    timer = threading.Timer(seconds, os.killpg, (0, signal.SIGKILL))
    timer.daemon = True
    timer.start()


def _called(function: Callable[..., Any], asked: dict[str, Any]) -> str:
    """Return the text of a tool's result; the limit of memory begins with the call, after its module was imported."""
    with open("/proc/self/statm", encoding="ascii") as sizes:
        used = int(sizes.read().split()[0]) * resource.getpagesize()
    most = used + asked["memory"] * MIB
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    result = function(**asked["arguments"])
    if isinstance(result, str):
        return result
    try:
        return json.dumps(result, ensure_ascii=False)
    except (TypeError, ValueError):
        return _without_places(str(result))


def _without_places(text: str) -> str:
    """Return a text without what differs between machines and processes."""
    return _ADDRESS.sub("", _PATH.sub("", text))


if __name__ == "__main__":
    main()
