"""Talking to the pool of a configuration."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import Any

from scripts.lib.config import parse_config
from server.pool.run import socket_path
from tests.workspace import ROOT, wait_for


def pool_status(config: dict[str, Any]) -> Any:
    """What the pool says of itself; None where none listens."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(socket_path(parse_config(config), ROOT)))
        except OSError:
            return None
        connection.sendall(b"status\n")
        with connection.makefile() as answer:
            return json.loads(answer.read())


def end_pool(config: dict[str, Any]) -> None:
    """End the pool of a configuration and wait until it is gone."""
    status = pool_status(config)
    if status is not None:
        os.kill(status["pid"], signal.SIGTERM)
        wait_for(lambda: pool_status(config) is None, 20, "the end of the pool")
