"""The address of a pool: a file, for its user alone, with a port on the loopback interface and a token.

Also the JSON that a pool answers about itself, and the folder in which addresses lie. Only the standard library is
needed, see `protocol`.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from server.pool.protocol import STATUS


class WorkerStatus(TypedDict):
    """One server.

    `state` is `waiting`, `starting`, `live` or `failed`; `phase` says in words what it does, `log_line` is the last
    line of its log while it is not live, `error` why it failed or was restarted last.
    """

    name: str
    url: str
    state: str
    phase: str
    log_line: str
    in_flight: int
    served: int
    failures: int
    restarts: int
    error: str | None


class FleetStatus(TypedDict):
    """The servers of one model, of one kind (`vllm` or `nnsight`).

    `standing` is false while another model has its turn. Requests wait for the turn, then for room at a server.
    """

    kind: str
    model: str
    experiments: list[str]
    standing: bool
    waiting_for_turn: int
    waiting_for_room: int
    workers: list[WorkerStatus]


class PoolStatus(TypedDict):
    """A pool: its process, the workflows that it lives for, and the jobs that it works on, by kind."""

    pid: int
    owners: list[int]
    running: dict[str, int]
    fleets: list[FleetStatus]


@dataclass(frozen=True)
class PoolAddress:
    """A port and the token that a client must send first."""

    port: int
    token: str

    @classmethod
    def new(cls, port: int) -> PoolAddress:
        """An address with a fresh token."""
        return cls(port, secrets.token_hex(16))

    @classmethod
    def read(cls, path: Path) -> PoolAddress | None:
        """The address in a file, None where there is none."""
        try:
            port, token = path.read_text().split()
            return cls(int(port), token)
        except (OSError, ValueError):
            return None

    def write(self, path: Path) -> None:
        """Publish the address; the folder keeps others out, the mode of the file as well."""
        from emoprobe.results import atomic  # which clients do without

        old = os.umask(0o077)
        try:
            atomic.write_text(path, f"{self.port} {self.token}\n")
        finally:
            os.umask(old)

    def connect(self) -> socket.socket | None:
        """A connection to the pool, None where it is gone."""
        try:
            return socket.create_connection(("127.0.0.1", self.port), timeout=5.0)
        except OSError:
            return None


def pool_status(path: Path) -> PoolStatus | None:
    """Return the status of the pool at an address; None where none answers."""
    address = PoolAddress.read(path)
    connection = address.connect() if address is not None else None
    if address is None or connection is None:
        return None
    with connection:
        try:
            connection.sendall(f"{address.token}\t{STATUS}\n".encode())
            with connection.makefile() as answer:
                found: PoolStatus = json.loads(answer.read())
        except (OSError, ValueError):
            return None
    return found


def private_folder(folder: Path) -> None:
    """Make the folder of the addresses, which nobody else may enter.

    Raises:
        PermissionError: the folder belongs to somebody else.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise PermissionError(f"{folder} is not this user's alone; remove it, or set XDG_RUNTIME_DIR")


def search_path(*folders: Path) -> str:
    """Return the value of `PYTHONPATH` for some folders of this machine.

    It has no way to write a folder with a colon in its path; such a folder is named by a link to it.

    Raises:
        PermissionError: the folder of the links belongs to somebody else.
    """
    return os.pathsep.join(str(_linked(folder) if os.pathsep in str(folder) else folder) for folder in folders)


def _linked(folder: Path) -> Path:
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"emoprobe-{os.getuid()}"
    private_folder(base)
    link = base / f"{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.folder"
    with suppress(FileExistsError):  # its name says where it leads
        link.symlink_to(folder)
    return link
