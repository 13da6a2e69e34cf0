"""The same experiment on this machine and in SLURM jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.conftest import PATIENCE
from tests.slurm import Slurm
from tests.workflow.pool import end_pool
from tests.workflow.pool import workers as pool_workers
from tests.workspace import Workspace, wait_for

GOAL = ("--until", "generate_and_capture")


def test_servers_in_slurm_jobs_make_the_same_trajectories(
    slurm: Slurm, workspace: Callable[..., Workspace], tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    here = workspace(
        model={"source": str(tiny("llama"))},
        generation={"backend": "nnsight"},
        workers={"model_name": None},
        capture={"enabled": True},
    )
    here.run(*GOAL)
    shape = {"cpus": 1, "memory": "2G", "time": "01:00:00", "count": 2}
    workers = {"requests": 2, "slurm": [shape], "keep_alive": PATIENCE}
    there = Workspace(tmp_path / "there", {**here.config, "workers": workers})
    there.folder.mkdir()
    try:
        # The rest once both servers are up: each answers its part.
        there.run("results/tiny/calm/gsm8k_0001/trajectory.jsonl")
        wait_for(lambda: states(there) == ["live", "live"], PATIENCE, "both servers")
        there.run(*GOAL)
    finally:
        end_pool(there.config)
    assert there.trajectories() == here.trajectories()
    assert len(there.trajectories()) == 12
    served = {there.json("control", f"gsm8k_000{number}", "sample.json")["worker_id"] for number in range(1, 5)}
    assert served == {"nnsight-0", "nnsight-1"}
    for path in here.layout.root.glob("activations/*/*/activations.safetensors"):
        assert (there.layout.root / path.relative_to(here.layout.root)).exists()
    slurm.wait_until_empty()
    assert list((there.folder / "results/.slurm").iterdir()) == []


def states(workspace: Workspace) -> list[str]:
    """The state of each server."""
    return [worker["state"] for worker in pool_workers(workspace.config)]
