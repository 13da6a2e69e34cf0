"""The address of a pool: a file, for its user alone, with a port on the loopback interface and a token."""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

from server.pool.protocol import STATUS
from server.pool.status import PoolStatus


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
    """What the pool at an address says of itself, None where none answers."""
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
