"""Processes that begin as copies of one that has imported what they need.

Imports are most of what a short `snakemake` command costs, and the tests run hundreds of them. What a copy does, it does
as the command would: with its arguments, environment, folder and output, to its end or until it is killed.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from setproctitle import getproctitle, setproctitle

CODE = Path(__file__).parents[1]
# What `snakemake` and the Snakefile import.
SNAKEMAKE = (
    "snakemake.cli",
    "snakemake.executors.local",
    "snakemake.scheduling.greedy",
    "emoprobe.report.figures",
    "emoprobe.workflow.checks",
    "emoprobe.workflow.live_servers",
    "emoprobe.workflow.lost_jobs",
    "emoprobe.workflow.outcome",
    "emoprobe.workflow.targets",
    "server.deploy.deployment",
    "server.pool.client",
    "snakemake_executor_plugin_emoprobe",
    "snakemake_scheduler_plugin_emoprobe",
)
LONGEST_ORDER = 1 << 20


@dataclass(frozen=True)
class Order:
    """A command `python -m MODULE ARGUMENTS`: in which folder and environment, and whether in a session of its own."""

    module: str
    arguments: list[str]
    folder: str
    env: dict[str, str]
    session: bool = False


class Copy:
    """A process that a template has become; what tests use of `subprocess.Popen`."""

    def __init__(self, order: Order, status: socket.socket) -> None:
        self._order = order
        self.returncode: int | None = None
        self._status = status
        self.pid = int(self._line())

    def _line(self) -> str:
        return self._status.recv(32).decode()

    def poll(self) -> int | None:
        """Its exit status, or the negated number of the signal that ended it; None while it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        if self.returncode is None:
            with selectors.DefaultSelector() as selector:
                selector.register(self._status, selectors.EVENT_READ)
                if not selector.select(timeout):
                    raise subprocess.TimeoutExpired(self._order.arguments, timeout or 0)
            self.returncode = int(self._line())
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


class Template:
    """A process that has imported modules and waits to be copied."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.preloaded", str(theirs.fileno()), *modules]
            subprocess.Popen(command, cwd=CODE, pass_fds=[theirs.fileno()])

    def start(self, order: Order, output: IO[Any], errors: IO[Any]) -> Copy:
        """Become a command that writes into these files."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            numbers = [theirs.fileno(), output.fileno(), errors.fileno()]
            socket.send_fds(self._orders, [json.dumps(asdict(order)).encode()], numbers)
        return Copy(order, mine)


@functools.cache
def snakemake() -> Template:
    """The template of this process's Snakemakes."""
    return Template(SNAKEMAKE)


def main() -> None:
    """Be a template: take orders until nobody is left to give them. Each copy returns from here as its command."""
    orders = socket.socket(fileno=int(sys.argv[1]))
    for name in sys.argv[2:]:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    getproctitle()  # finds the place of the title, which lies before that of the environment as it was at the start
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for copies
    while True:
        message, numbers, _, _ = socket.recv_fds(orders, LONGEST_ORDER, 3)
        if not message:
            return
        if os.fork() == 0:
            orders.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            status, output, errors = numbers
            become(Order(**json.loads(message)), socket.socket(fileno=status), output, errors)
            return
        for number in numbers:
            os.close(number)


def become(order: Order, status: socket.socket, output: int, errors: int) -> None:
    """Run an order in a process of its own, and wait for that to tell its number and its end."""
    number = os.fork()
    if number:
        os.close(output)
        os.close(errors)
        with suppress(OSError):
            status.send(str(number).encode())
            status.send(str(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])).encode())
        os._exit(0)
    status.close()
    if order.session:
        os.setsid()
    for source, target in ((output, 1), (errors, 2)):
        os.dup2(source, target)
        os.close(source)
    os.environ.clear()
    os.environ.update(order.env)
    os.chdir(order.folder)
    sys.path[0] = order.folder
    sys.argv = [order.module, *order.arguments]
    setproctitle(" ".join([sys.executable, "-m", *sys.argv]))
    runpy.run_module(order.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
