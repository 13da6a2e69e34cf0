"""Tools for agents in tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Literal


def calculator(expression: str) -> str:
    """Compute a sum.

    Args:
        expression: The summands, such as `2 + 3`.
    """
    return str(sum(int(part) for part in expression.split("+")))


def hang(text: str = "") -> str:
    """Never return.

    Args:
        text: Digits, by which a process that it starts is known.
    """
    subprocess.Popen(["sleep", f"1000.{text}"])
    time.sleep(1000)
    return text


def stubborn(text: str = "") -> str:
    """Never return, ignore signals of alarms, and leave a process that holds every open file.

    Args:
        text: Anything.
    """
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    os.fork()
    time.sleep(1000)
    return text


def fail(text: str = "") -> str:
    """Raise an error that names a folder of the machine.

    Args:
        text: Anything.
    """
    raise FileNotFoundError(2, "No such file", f"{os.getcwd()}/{text}data.csv")


def chatter(text: str = "") -> dict[str, str]:
    """Print and return.

    Args:
        text: Anything.
    """
    print("noise" * 1000)
    os.system("echo noise; echo noise >&2")
    return {"said": text}


def large(megabytes: int = 10) -> str:
    """Return many characters.

    Args:
        megabytes: How many.
    """
    return "x" * (megabytes * 1_000_000)


def greedy(mebibytes: int) -> int:
    """Use memory.

    Args:
        mebibytes: How much.
    """
    return len(bytearray(mebibytes << 20))


def leave(code: int = 3) -> str:
    """End the process.

    Args:
        code: Its exit status.
    """
    os._exit(code)


def parent(text: str = "") -> list[str]:
    """Return what a tool knows of the machine.

    Args:
        text: Digits, by which a process that it starts is known.
    """
    left = subprocess.Popen(["sleep", f"1000.{text}"])
    if not os.fork():
        time.sleep(1000)
    kept = sorted(name for name in os.environ if "KEY" in name or "TOKEN" in name)
    return [*kept, str(left.returncode), *{"a", "b", "c"}, *sorted(os.listdir("."))]


def look(direction: Literal["north", "south"]) -> str:
    """Look in a direction.

    Args:
        direction: Where to look.
    """
    return f"a lake in the {direction}"


def undescribed(text) -> str:  # type: ignore[no-untyped-def]
    """Lack a type hint."""
    return str(text)


def exits(text: str = "") -> str:
    """Ask the interpreter to end.

    Args:
        text: Anything.
    """
    sys.exit(f"{text}bye")
