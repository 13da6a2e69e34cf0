"""Faults of tests/chaos that stub servers can show."""

from __future__ import annotations

import pytest

from tests.workflow import faults


@pytest.mark.parametrize("name", faults.OF_STUBS)
def test_fault(name: str) -> None:
    faults.check(name)
