"""Every fault of tests/chaos: nothing lost, nothing different, nothing left behind."""

from __future__ import annotations

import pytest

from tests.chaos import disk, slurm
from tests.chaos.faults import FAULTS
from tests.chaos.scene import survive

# test_vllm.py does the first with the servers that it has, tests/server/pool/test_slurm_jobs.py the others with stubs.
ELSEWHERE = {"vllm_sigkill", *slurm.FAULTS}


@pytest.mark.parametrize("name", [name for name in FAULTS if name not in ELSEWHERE])
def test_fault(name: str) -> None:
    if name in disk.MOUNTS and not disk.can_mount():
        pytest.skip("this user may not mount a small disk")
    result = survive(name, FAULTS[name])
    assert (result["lost"], result["different"], result["duplicated"], result["orphans"]) == (0, 0, 0, 0), result
