"""Ports for the servers that tests start.

A server binds its port some time after it was chosen for it, so that no other process may be given it meanwhile: these
lie below those that Linux gives away, and every worker of pytest-xdist has its own.
"""

from __future__ import annotations

import os
import socket

FIRST, OF_A_WORKER = 12_000, 500
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Two sessions at once on a machine begin at different places.
_given = os.getpid() % OF_A_WORKER


def free_port() -> int:
    """A port on the loopback interface that is free, and that this worker gives to nobody else for a long time."""
    global _given
    for _ in range(OF_A_WORKER):
        _given = (_given + 1) % OF_A_WORKER
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", FIRST + _WORKER % 40 * OF_A_WORKER + _given))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no port is free for a test's server")
