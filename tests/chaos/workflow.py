"""The workflow, its clients and its pool are killed, in mid-generation and in mid-capture; workflows meet."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from tests.chaos.scene import PAIRS, Fault, Scene, captures, nnsight_trajectories, stubs
from tests.conftest import PATIENCE
from tests.workflow.pool import pool_process, workers
from tests.workspace import Process, Workspace

busy = partial(stubs, delay=1.0, requests=2)
RESUMED = "nothing half-written, no process left, a plain re-run finishes"


def start_capturing(scene: Scene) -> Process:
    """Start the workflow, a job or two at a time, and return when there are first activations."""
    process = scene.start("--resources", "requests=2")
    root = scene.workspace.layout.root
    scene.wait_for(process, lambda: any(root.glob("activations/*/*/metadata.json")), "first activations")
    return process


def end_snakemake(
    number: signal.Signals, start: Callable[[Scene], Process] = Scene.start_busy
) -> Callable[[Scene], str]:
    """Snakemake is ended by a signal in mid-run; the next run finishes."""

    def inject(scene: Scene) -> str:
        process = start(scene)
        os.kill(process.pid, number)
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None:  # after SIGTERM it finishes the jobs that run
            assert time.monotonic() < deadline, scene.printed()[-3000:]
            if number is signal.SIGTERM:  # comes again and again, to meet it at every moment
                with suppress(ProcessLookupError):  # it may end between the two lines
                    os.kill(process.pid, number)
            time.sleep(0.01)
        seconds = scene.wait_until_nothing_is_left()
        before = len(scene.workspace.trajectories())
        return f"no process left after {seconds:.1f} s, {before} trajectories kept{rerun(scene)}"

    return inject


def kill_everything(start: Callable[[Scene], Process]) -> Callable[[Scene], str]:
    """What a loss of power does to processes: all end at once."""

    def inject(scene: Scene) -> str:
        process = start(scene)
        for line in scene.left_over():
            os.kill(int(line.split(":")[0]), signal.SIGKILL)
        process.wait(PATIENCE)
        return rerun(scene).removeprefix(", ")

    return inject


def rerun(scene: Scene) -> str:
    """A plain re-run, after which everything is there; files without an end are not."""
    scene.workspace.run("--unlock")
    scene.run()
    return ", complete after a re-run"


def kill_pool(start: Callable[[Scene], Process]) -> Callable[[Scene], str]:
    """The supervisor of the servers is killed."""

    def inject(scene: Scene) -> str:
        process = start(scene)
        os.kill(pool_process(scene.workspace.config), signal.SIGKILL)
        scene.finish(process)
        return "complete, with a new pool"

    return inject


def kill_client(scene: Scene) -> str:
    process = scene.start_busy("--executor", "local", "--cores", "64")  # whose jobs are commands
    # The client itself, and not the shell around it.
    clients = [line for line in scene.left_over() if "server/pool/ask.py" in line and "-IS" in line.split()[2]]
    os.kill(int(clients[0].split(":")[0]), signal.SIGKILL)
    assert process.wait(PATIENCE) == 1
    kept = len(scene.workspace.trajectories())
    assert kept == PAIRS - 1
    scene.run()
    return f"that trajectory failed alone, {kept} kept, complete after a re-run"


def two_workflows_one_folder(scene: Scene) -> str:
    for server in (0, 1):
        scene.set_faults({"kind": "hold", "times": PAIRS}, server=server)
    process = scene.start_busy()
    output = scene.run(ok=False)
    assert "lock" in output.lower()
    for server in (0, 1):
        scene.set_faults(server=server)
    scene.finish(process)
    return "the second is told that the folder is locked, the first completes"


def two_folders_one_pool(scene: Scene) -> str:
    scene.workers["keep_alive"] = PATIENCE
    other = Workspace(scene.folder / "other", scene.workspace.config)
    other.folder.mkdir()
    first, second = scene.start(), other.start(*scene.goal)
    scene.finish(first)
    assert second.wait(PATIENCE) == 0, (other.folder / "snakemake.out").read_text()[-3000:]
    assert other.trajectories() == scene.workspace.trajectories()
    assert sum(worker["served"] for worker in workers(scene.workspace.config)) == 2 * PAIRS
    return "both complete, one pool"


def in_capture(inject: Callable[[Scene], str], expected: str = RESUMED) -> Fault:
    """A fault in mid-capture, with a real server."""
    return Fault(expected, inject, captures, nnsight_trajectories)


FAULTS = {
    "workflow_sigkill": Fault(RESUMED, end_snakemake(signal.SIGKILL), busy),
    "workflow_sigterm": Fault(RESUMED, end_snakemake(signal.SIGTERM), busy),
    "workflow_ctrl_c": Fault(RESUMED, end_snakemake(signal.SIGINT), busy),
    "client_sigkill": Fault("that trajectory fails alone, a re-run makes it", kill_client, busy),
    "pool_sigkill": Fault("the next client starts a new pool; complete", kill_pool(Scene.start_busy), busy),
    "everything_sigkill": Fault(RESUMED, kill_everything(Scene.start_busy), busy),
    "capture_workflow_sigkill": in_capture(end_snakemake(signal.SIGKILL, start_capturing)),
    "capture_workflow_sigterm": in_capture(end_snakemake(signal.SIGTERM, start_capturing)),
    "capture_workflow_ctrl_c": in_capture(end_snakemake(signal.SIGINT, start_capturing)),
    "capture_pool_sigkill": in_capture(
        kill_pool(start_capturing), "its server ends with it, the next client starts both anew; complete"
    ),
    "capture_everything_sigkill": in_capture(kill_everything(start_capturing)),
    "two_workflows_one_folder": Fault("the second is told, the first completes", two_workflows_one_folder, busy),
    "two_folders_one_pool": Fault("both complete", two_folders_one_pool, partial(stubs, delay=0.5)),
}
