"""Faults of tests/chaos that befall real servers which generate."""

from __future__ import annotations

import pytest

from tests.workflow import faults


@pytest.mark.parametrize("name", faults.OF_SERVERS)
def test_fault(name: str) -> None:
    faults.check(name)
