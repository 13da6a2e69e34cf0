"""Talking to the pool of a configuration."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from emoprobe.config.files import parse_config
from server.pool import address
from server.pool.run import address_path
from tests.workspace import ROOT, wait_for


def pool_status(config: dict[str, Any]) -> Any:
    """What the pool of a configuration says of itself; None where none listens."""
    return address.pool_status(address_path(parse_config(config), ROOT))


def worker_status(config: dict[str, Any], name: str) -> dict[str, Any]:
    """What the pool says of one server; empty while it says nothing."""
    status = pool_status(config)
    return next((worker for worker in status["workers"] if worker["name"] == name), {}) if status else {}


def server_process(config: dict[str, Any], name: str) -> int | None:
    """The number of the process of a server that the pool has started; None while there is none."""
    port = worker_status(config, name).get("url", "").rpartition(":")[2]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if port and f"\0--port\0{port}\0".encode() in entry.read_bytes():
                return int(entry.parent.name)
    return None


def end_pool(config: dict[str, Any]) -> None:
    """End the pool of a configuration and wait until it is gone."""
    status = pool_status(config)
    if status is not None:
        os.kill(status["pid"], signal.SIGTERM)
        wait_for(lambda: pool_status(config) is None, 20, "the end of the pool")
