"""Every fault of tests/chaos.py: nothing lost, nothing different, nothing left behind."""

from __future__ import annotations

import pytest

from tests import chaos


@pytest.fixture(scope="module")
def expected() -> dict[str, bytes]:
    return chaos.undisturbed()


@pytest.mark.parametrize("name", chaos.FAULTS)
def test_fault(name: str, expected: dict[str, bytes]) -> None:
    result = chaos.run(name, expected)
    assert (result["lost"], result["different"], result["duplicated"], result["orphans"]) == (0, 0, 0, 0), result
