"""Talking to the pool of a configuration, or of several experiments."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from emoprobe.config.files import parse_config
from server.pool import address
from server.pool.address import PoolStatus, WorkerStatus
from server.pool.run import address_path
from tests.workspace import ROOT, wait_for


def pool_status(*configs: dict[str, Any]) -> PoolStatus | None:
    """What the pool of a plan says of itself; None where none listens."""
    parsed = [parse_config(config) for config in configs]
    return address.pool_status(address_path({config.experiment.name: config for config in parsed}, ROOT))


def pool_process(*configs: dict[str, Any]) -> int:
    """The process number of the pool of a plan, which must listen."""
    status = pool_status(*configs)
    assert status is not None
    return status["pid"]


def workers(*configs: dict[str, Any]) -> list[WorkerStatus]:
    """Every server of a plan, those that stand first."""
    status = pool_status(*configs)
    fleets = status["fleets"] if status else []
    return [worker for fleet in sorted(fleets, key=lambda fleet: not fleet["standing"]) for worker in fleet["workers"]]


def worker_status(config: dict[str, Any], name: str) -> dict[str, Any]:
    """What the pool says of one server; empty while it says nothing."""
    return next((dict(worker) for worker in workers(config) if worker["name"] == name), {})


def server_process(config: dict[str, Any], name: str) -> int | None:
    """The number of the process of a server that the pool has started; None while there is none."""
    port = worker_status(config, name).get("url", "").rpartition(":")[2]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            # The title of a copy has its words apart by spaces.
            if port and f" --port {port} ".encode() in entry.read_bytes().replace(b"\0", b" "):
                return int(entry.parent.name)
    return None


def server_key(config: dict[str, Any], name: str) -> str:
    """The API key of a server that the pool has started."""
    entries = Path(f"/proc/{server_process(config, name)}/environ").read_bytes().split(b"\0")
    return next(entry.decode().partition("=")[2] for entry in entries if entry.startswith(b"VLLM_API_KEY="))


def end_pool(*configs: dict[str, Any]) -> None:
    """End the pool of a plan and wait until it is gone."""
    status = pool_status(*configs)
    if status is not None:
        os.kill(status["pid"], signal.SIGTERM)
        wait_for(lambda: pool_status(*configs) is None, 300, "the end of the pool")
