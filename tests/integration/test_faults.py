"""Every fault of tests/chaos: nothing lost, nothing different, nothing left behind."""

from __future__ import annotations

import pytest

from tests.chaos.faults import FAULTS
from tests.chaos.scene import survive


@pytest.mark.parametrize("name", FAULTS)
def test_fault(name: str) -> None:
    result = survive(name, FAULTS[name])
    assert (result["lost"], result["different"], result["duplicated"], result["orphans"]) == (0, 0, 0, 0), result
