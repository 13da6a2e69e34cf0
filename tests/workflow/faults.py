"""The faults of tests/chaos as tests, in three files: each makes its servers and its undisturbed run once."""

from __future__ import annotations

import pytest

from tests.chaos import disk, slurm
from tests.chaos.faults import FAULTS
from tests.chaos.scene import captures, nnsight_trajectories, survive

# test_vllm.py does the first with the servers that it has, tests/server/pool/test_slurm_jobs.py the others with stubs.
ELSEWHERE = {"vllm_sigkill", *slurm.FAULTS}
HERE = {name: fault for name, fault in FAULTS.items() if name not in ELSEWHERE}
OF_CAPTURES = [name for name, fault in HERE.items() if fault.scene is captures]
OF_SERVERS = [
    name for name, fault in HERE.items() if fault.undisturbed is nnsight_trajectories and name not in OF_CAPTURES
]
OF_STUBS = [name for name in HERE if name not in {*OF_CAPTURES, *OF_SERVERS}]


def check(name: str) -> None:
    """Inject a fault: nothing is lost, nothing different, nothing left behind."""
    if name in disk.MOUNTS and not disk.can_mount():
        pytest.skip("this user may not mount a small disk")
    result = survive(name, FAULTS[name])
    assert (result["lost"], result["different"], result["duplicated"], result["orphans"]) == (0, 0, 0, 0), result
