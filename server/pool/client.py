"""The client of the pool: jobs over one connection, which is made again, as the pool is, where it ends."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from server.pool.address import PoolAddress, private_folder
from server.pool.protocol import JOBS, Access, Job, encode, encode_remaining

MAX_POOLS = 4
CHUNK = 1 << 16
AWAY = "The pool went away four times; see pool.log in the folder of the logs.\n"
OWNERLESS = "The workflow has ended, and its pool with it; run the workflow again.\n"


@dataclass
class _Asked:
    line: str
    pools: int = 0
    """How many pools were asked."""


class PoolClient:
    """Asks the pool for jobs and tells of each, exactly once, what came of it.

    Whatever becomes of a connection or of a pool: a job leaves `_asked` when its answer is told, and only then. What is
    still in it when a connection ends is asked again of the next pool, which is started where none answers.

    Args:
        access: where the pool is, who asks, and with what a pool is started.
        answered: called in a thread of the client with the number of a job and why it failed, empty where it succeeded;
            must not raise.
    """

    def __init__(self, access: Access, answered: Callable[[int, str], None]) -> None:
        self._access, self._address, self._answered = access, access.address, answered
        self._caller = access.caller.absolute()
        self._lock = threading.Lock()
        self._wanted = threading.Condition(self._lock)
        self._asked: dict[int, _Asked] = {}
        self._connection: socket.socket | None = None
        self._closed = False
        self._remaining = ""
        threading.Thread(target=self._work, name="pool-client", daemon=True).start()

    def ask(self, jobs: Iterable[tuple[int, Job]]) -> None:
        """Have numbered jobs done; return at once."""
        asked = {number: _Asked(encode(number, self._caller, job)) for number, job in jobs}
        with self._lock:
            self._asked |= asked
            if self._connection is not None:
                self._send(self._connection, list(asked.values()))
            self._wanted.notify()

    def tell_remaining(self, kinds: Iterable[str]) -> None:
        """Tell the pool which kinds of jobs the plan still holds, so that servers without work can end."""
        with self._lock:
            self._remaining = encode_remaining(self._caller, kinds)
            if self._connection is not None:
                with suppress(OSError):
                    self._connection.sendall(os.fsencode(self._remaining))

    def close(self) -> None:
        """Tell of no more jobs; the pool gives up what was asked of it and is not done."""
        with self._lock:
            self._closed = True
            self._asked.clear()
            self._hang_up()
            self._wanted.notify()

    def _work(self) -> None:
        """Ask and listen until the client is closed. An error fails the jobs that wait, never this thread alone."""
        while True:
            with self._lock:
                self._wanted.wait_for(lambda: self._asked or self._closed)
                if self._closed:
                    return
            try:
                reason = self._reach()
                if not reason:
                    self._listen()
            except Exception:
                reason = f"The pool's client failed (a bug in Emoprobe):\n{traceback.format_exc()}"
            with self._lock:
                self._hang_up()
            if reason:
                self._fail(lambda _: True, reason)
            else:
                self._fail(lambda asked: asked.pools >= MAX_POOLS, AWAY)

    def _reach(self) -> str:
        """Connect to the pool, which is started where none answers, and ask for all jobs; returns why that failed."""
        connection, address = self._connected()
        if connection is None:
            try:
                reason = self._start()
            except OSError as error:
                reason = f"The pool cannot be started: {error}\n"
            if reason:
                return reason
            connection, address = self._connected()
            if connection is None:
                return f"The pool that was started does not answer; see {self._address}.log\n"
        assert address is not None
        with self._lock:
            if self._closed:
                connection.close()
                return ""
            self._connection = connection
            with suppress(OSError):
                connection.sendall(f"{address.token}\t{JOBS}\n".encode())
            self._send(connection, list(self._asked.values()))
            with suppress(OSError):
                connection.sendall(os.fsencode(self._remaining))
        return ""

    def _connected(self) -> tuple[socket.socket | None, PoolAddress | None]:
        address = PoolAddress.read(self._address)
        connection = address.connect() if address is not None else None
        if connection is not None:
            connection.settimeout(None)
        return connection, address

    def _start(self) -> str:
        """Start a pool unless somebody else does at the same time; returns why that failed, empty where it did not."""
        private_folder(self._address.parent)
        with open(f"{self._address}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            connection, _ = self._connected()
            if connection is not None:
                connection.close()
                return ""
            caller = self._caller
            if not is_alive(caller.owner):
                return OWNERLESS
            command = [self._access.python, "-m", "server.pool.start", str(self._address)]
            done = subprocess.run(
                [*command, caller.plan, caller.results, caller.directory, str(caller.owner)],
                env={**os.environ, "PYTHONPATH": str(self._access.code)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
            )
        return "" if done.returncode == 0 else done.stderr or f"The pool did not start ({done.returncode}).\n"

    def _send(self, connection: socket.socket, jobs: list[_Asked]) -> None:
        """Ask for jobs; a connection that has ended is noticed where it is read. Holds the lock."""
        for asked in jobs:
            asked.pools += 1
        with suppress(OSError):
            connection.sendall(os.fsencode("".join(asked.line for asked in jobs)))

    def _listen(self) -> None:
        """Tell of every job that the pool answers, until the connection ends."""
        connection = self._connection
        rest = b""
        while connection is not None:
            try:
                chunk = connection.recv(CHUNK)
            except OSError:
                return
            if not chunk:
                return
            *lines, rest = (rest + chunk).split(b"\n")
            for each in lines:
                number, answer = json.loads(each)
                self._tell(number, answer)

    def _fail(self, which: Callable[[_Asked], bool], reason: str) -> None:
        with self._lock:
            numbers = [number for number, asked in self._asked.items() if which(asked)]
        for number in numbers:
            self._tell(number, reason)

    def _tell(self, number: int, reason: str) -> None:
        with self._lock:
            known = self._asked.pop(number, None)
        # Without the lock: who is told may ask for the next job, or wait for somebody who does.
        if known is not None:
            self._answered(number, reason)

    def _hang_up(self) -> None:
        """Holds the lock."""
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)
            self._connection.close()
            self._connection = None


def is_alive(process: int) -> bool:
    """Return whether a process runs; one that has been killed may stay as a zombie until its parent looks."""
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return not any(line.startswith("State:") and line.split()[1] in "ZX" for line in lines)
