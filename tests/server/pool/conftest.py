"""A house for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.pool.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Plans, stub servers and a pool in a folder of their own."""
    made = House(tmp_path)
    yield made
    made.close()
