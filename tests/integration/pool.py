"""Talking to the pool of a configuration."""

from __future__ import annotations

import os
import signal
from typing import Any

from scripts.lib.config_files import parse_config
from server.pool import address
from server.pool.run import address_path
from tests.workspace import ROOT, wait_for


def pool_status(config: dict[str, Any]) -> Any:
    """What the pool of a configuration says of itself; None where none listens."""
    return address.pool_status(address_path(parse_config(config), ROOT))


def end_pool(config: dict[str, Any]) -> None:
    """End the pool of a configuration and wait until it is gone."""
    status = pool_status(config)
    if status is not None:
        os.kill(status["pid"], signal.SIGTERM)
        wait_for(lambda: pool_status(config) is None, 20, "the end of the pool")
