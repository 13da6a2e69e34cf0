"""Every fault of tests/chaos: nothing lost, nothing different, nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos import disk, slurm
from tests.chaos.faults import FAULTS
from tests.chaos.scene import captures, nnsight_trajectories, survive

# test_vllm.py does the first with the servers that it has, tests/server/pool/test_slurm_jobs.py the others with stubs.
ELSEWHERE = {"vllm_sigkill", *slurm.FAULTS}


def fault(name: str) -> Any:
    """The fault, beside those for which the same servers and the same undisturbed run are made."""
    if FAULTS[name].scene is captures:
        group = "faults-of-captures"
    else:
        group = "faults-of-servers" if FAULTS[name].undisturbed is nnsight_trajectories else "faults"
    return pytest.param(name, marks=pytest.mark.xdist_group(group))


@pytest.mark.parametrize("name", [fault(name) for name in FAULTS if name not in ELSEWHERE])
def test_fault(name: str) -> None:
    if name in disk.MOUNTS and not disk.can_mount():
        pytest.skip("this user may not mount a small disk")
    result = survive(name, FAULTS[name])
    assert (result["lost"], result["different"], result["duplicated"], result["orphans"]) == (0, 0, 0, 0), result
