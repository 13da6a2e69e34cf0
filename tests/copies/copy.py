"""How a copy is asked for, watched and ended."""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import IO, Any

# The variable that holds the address of the template.
TEMPLATE = "EMOPROBE_TEMPLATE"


@dataclass(frozen=True)
class Order:
    """A command `python -m MODULE ARGUMENTS`.

    It runs in this folder and environment, in a session of its own if `session`, and is killed when the one that ordered
    it ends if `tied`. `code` is the folder that it imports this project from, if not from here, and `input` what it
    reads from its standard input.
    """

    module: str
    arguments: list[str]
    folder: str
    env: dict[str, str]
    session: bool = False
    tied: bool = False
    code: str | None = None
    input: str | None = None


class Copy:
    """A process that a template has become: what is used of `subprocess.Popen`."""

    def __init__(self, order: Order, status: socket.socket) -> None:
        self._order = order
        self.returncode: int | None = None
        self._status = status
        self.pid = int(self._line())

    def _line(self) -> str:
        return self._status.recv(32).decode()

    def fileno(self) -> int:
        """What becomes readable when it ends."""
        return self._status.fileno()

    def hang_up(self) -> None:
        """Ask no more about it, as one does who ends."""
        self._status.close()

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


class AwaitedCopy:
    """The same for an event loop: what is used of `asyncio.subprocess.Process`."""

    def __init__(self, copy: Copy) -> None:
        self._copy, self.pid = copy, copy.pid
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_reader(copy.fileno(), self._end)

    def _end(self) -> None:
        self._loop.remove_reader(self._copy.fileno())
        self._ended.set_result(self._copy.wait())

    @property
    def returncode(self) -> int | None:
        """As of `Copy.poll`."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Wait for its end."""
        return await asyncio.shield(self._ended)

    def terminate(self) -> None:
        """Ask it to end."""
        if not self._ended.done():
            self._copy.terminate()


def has_template() -> bool:
    """Whether there is a template."""
    return TEMPLATE in os.environ


def begin(order: Order, output: int | IO[Any], errors: int | IO[Any], source: int | None = None) -> Copy:
    """Have the template become a command that writes into these files, and reads from the file `source`."""
    status = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    status.connect(os.environ[TEMPLATE])
    numbers = [each if isinstance(each, int) else each.fileno() for each in (output, errors)]
    numbers += [] if source is None else [source]
    socket.send_fds(status, [json.dumps(asdict(order)).encode()], numbers)
    return Copy(order, status)


def launch(
    order: Order, output: int | IO[Any], errors: int | IO[Any], *, copied: bool = True
) -> subprocess.Popen[bytes] | Copy:
    """Start a command: as a copy where there is a template and `copied` is true, else as a process of this one."""
    if copied and has_template():
        return begin(order, output, errors)
    command = [sys.executable, "-m", order.module, *order.arguments]
    return subprocess.Popen(
        command, cwd=order.folder, env=order.env, stdout=output, stderr=errors, start_new_session=order.session
    )
