"""Faults of tests/chaos that befall captures on a real server."""

from __future__ import annotations

import pytest

from tests.workflow import faults


@pytest.mark.parametrize("name", faults.OF_CAPTURES)
def test_fault(name: str) -> None:
    faults.check(name)
