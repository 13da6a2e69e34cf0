"""What a copied command asks to be copied, in place of the processes that it would start.

Servers of vLLM, `bash` and all else are started as ever.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from importlib import import_module
from types import ModuleType, SimpleNamespace
from typing import IO, Any

from tests.copies.copy import AwaitedCopy, Copy, Order, begin
from tests.workspace import ROOT

# The command of a rule that is nothing but a script.
SCRIPT = re.compile(r"set -euo pipefail;\s+\S+ (\S+)/scripts (\w+) ([^|;&<>]*) > (\S+) 2>&1")
PYTHON_M = [sys.executable, "-m"]


def order_copies(module: str) -> None:
    """Have a command that runs in this process, by its module, ask for copies."""
    if module == "snakemake":
        vars(import_module("snakemake.shell"))["sp"] = _with(subprocess, Popen=_shell)
        vars(import_module("server.pool.client"))["subprocess"] = _with(subprocess, run=_run)
        order_checks()
        vars(import_module("emoprobe.workflow.drawing"))["subprocess"] = _with(subprocess, Popen=_drawing)
    elif module == "server.pool.start":  # which is yet to be run, and imports this then
        sys.modules["subprocess"] = _with(subprocess, Popen=_pool)
    elif module == "server.pool":
        vars(import_module("server.pool.local_process"))["asyncio"] = _with(asyncio, create_subprocess_exec=_server)


def order_checks() -> None:
    """Have checks before a run that this process asks for be copies."""
    vars(import_module("emoprobe.workflow.heavy_checks"))["subprocess"] = _with(subprocess, run=_run)


def _with(module: ModuleType, **changed: Any) -> Any:
    """A module with another thing in it."""
    return SimpleNamespace(**vars(module) | changed)


def _shell(command: str, **named: Any) -> subprocess.Popen[Any] | Copy:
    """A script of a rule of this project, or whatever else a shell is asked for."""
    found = SCRIPT.fullmatch(command.strip())
    if found is None:
        return subprocess.Popen(command, **named)
    code, name, arguments, log_path = found.groups()
    # As `scripts/__main__.py` has it.
    env = {**named["env"], "PYTHONPATH": os.pathsep.join([code, os.getcwd()])}
    (log_path,) = shlex.split(log_path)
    order = Order(f"scripts.{name}", shlex.split(arguments), os.getcwd(), env, code=None if code == str(ROOT) else code)
    try:
        with open(log_path, "wb") as log:
            return begin(order, log, log)
    except OSError:  # the shell says why the log cannot be written
        return subprocess.Popen(command, **named)


def _run(command: list[str], **named: Any) -> subprocess.CompletedProcess[str]:
    """The start of a pool, or a check before a run."""
    if command[:2] != PYTHON_M:
        done: subprocess.CompletedProcess[str] = subprocess.run(command, **named)
        return done
    order = Order(command[2], command[3:], os.getcwd(), named["env"], input=named.get("input"))
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+", errors="replace") as errors:
        status = begin(order, output, errors).wait()
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, status, output.read(), errors.read())


class _Drawing:
    """The script that draws samples: what is used of `subprocess.Popen` with pipes."""

    def __init__(self, copy: Copy, stdin: IO[str], stdout: IO[str]) -> None:
        self._copy, self._lock = copy, threading.Lock()
        self.stdin, self.stdout = stdin, stdout

    def kill(self) -> None:
        with self._lock:
            self._copy.kill()

    def wait(self) -> int:
        with self._lock:
            return self._copy.wait()

    def __enter__(self) -> _Drawing:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in (self.stdin, self.stdout):
            with suppress(OSError):
                pipe.close()


def _drawing(command: list[str], **named: Any) -> _Drawing:
    _interpreter, scripts, name, *arguments = command
    code = os.path.dirname(scripts)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([code, os.getcwd()])}  # as `scripts/__main__.py` has it
    order = Order(
        f"scripts.{name}", arguments, os.getcwd(), env, session=True, code=None if code == str(ROOT) else code
    )
    (asked, ask), (answers, answer) = os.pipe(), os.pipe()
    copy = begin(order, answer, named["stderr"], asked)
    os.close(asked)
    os.close(answer)
    text = {"encoding": named["encoding"], "errors": named["errors"]}
    return _Drawing(copy, open(ask, "w", **text), open(answers, **text))


def _pool(command: list[str], **named: Any) -> Copy:
    order = Order(command[2], command[3:], named["cwd"], named["env"], session=True)
    return begin(order, named["stdout"], named["stderr"])


async def _server(*command: str, **named: Any) -> asyncio.subprocess.Process | AwaitedCopy:
    """An NNsight server, or another one."""
    if command[:4] != (*PYTHON_M, "server.pool.child", "server"):
        return await asyncio.create_subprocess_exec(*command, **named)
    order = Order(command[2], list(command[3:]), named["cwd"], named["env"], session=True, tied=True)
    return AwaitedCopy(await asyncio.to_thread(begin, order, named["stdout"], named["stderr"]))
