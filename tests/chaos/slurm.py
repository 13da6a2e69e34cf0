"""Servers in jobs of a real SLURM that are taken away in every way there is, and SLURM's own daemons that fail.

A fault comes while both servers are held in the middle of a request, so that there is always something to lose. It
takes the rights of root; where SLURM cannot be started there are no such faults.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.chaos.scene import Fault, Scene, nnsight_trajectories, tiny_model
from tests.conftest import PATIENCE
from tests.slurm import Slurm, why_not
from tests.workflow.pool import end_pool, pool_process, server_process, workers
from tests.workspace import wait_for

NAMES = ("nnsight-0", "nnsight-1")
# On a cluster with one server a node, so that a node's fate is one server's.
SHAPE = {"cpus": 3, "memory": "2G", "time": "01:00:00", "count": 2}
OUTAGE_SECONDS = 60.0


class SlurmScene(Scene):
    """Trajectories and captures from two real NNsight servers in SLURM jobs, on two nodes."""

    def __init__(self, **settings: Any) -> None:
        sections = {
            "model": {"source": str(tiny_model())},
            "generation": {"backend": "nnsight", "max_tokens": 24},
            "workers": {"requests": 2, "slurm": [SHAPE], **settings},
            "capture": {"dtype": "float32"},
        }
        super().__init__(sections, ("--until", "generate_and_capture"))
        self._cluster_folder = tempfile.TemporaryDirectory(prefix="chaos-slurm-", ignore_cleanup_errors=True)
        os.chmod(self._cluster_folder.name, 0o755)
        self.slurm = Slurm(Path(self._cluster_folder.name))
        self.slurm.start()
        os.environ["SLURM_CONF"] = str(self.slurm.config)

    def close(self) -> None:
        super().close()
        os.environ.pop("SLURM_CONF", None)
        self.slurm.stop()
        self._cluster_folder.cleanup()

    def hold(self, process: subprocess.Popen[str]) -> list[int]:
        """Wait until both servers have requests in flight, and stop them there; return their processes."""
        held: dict[str, int] = {}
        while len(held) < len(NAMES):
            for name in NAMES:
                found = server_process(self.workspace.config, name)
                if name not in held and found is not None and self.worker(name).get("in_flight", 0) > 0:
                    os.kill(found, signal.SIGSTOP)
                    held[name] = found
            assert process.poll() is None, self.printed()[-3000:]
            time.sleep(0.02)
        return [held[name] for name in NAMES]

    def node(self, name: str) -> str:
        """The node where a server stands."""
        port = self.worker(name)["url"].rpartition(":")[2]
        for path in (self.folder / "results/.slurm").glob(f"*/{name}-*/address.json"):
            if f'"port": {port},' in path.read_text():
                return path.read_text().rpartition('"node": "')[2].partition('"')[0]
        raise LookupError(name)

    def jobs(self) -> set[int]:
        """The numbers of all jobs in the queue."""
        return set(self.slurm.jobs())


class Watch:
    """When a server's loss was seen, when a job took its place, and when that answered, in seconds from now on."""

    def __init__(self, scene: SlurmScene, name: str) -> None:
        self._scene, self._name = scene, name
        self._before, self._restarts = scene.jobs(), scene.worker(name)["restarts"]
        self._started = time.monotonic()

    def words(self) -> str:
        """Wait for all three."""
        times = []
        for holds in (self._seen, self._submitted, self._live):
            wait_for(holds, PATIENCE, f"{holds.__name__} of {self._name}")
            times.append(time.monotonic() - self._started)
        return "loss seen after {:.1f} s, submitted again after {:.1f} s, at work after {:.1f} s".format(*times)

    def _worker(self) -> dict[str, Any]:
        return self._scene.worker(self._name)

    def _seen(self) -> bool:
        return self._worker().get("state") != "live" or self._worker()["restarts"] > self._restarts

    def _submitted(self) -> bool:
        return bool(self._scene.jobs() - self._before)

    def _live(self) -> bool:
        return self._worker().get("state") == "live" and self._worker()["restarts"] > self._restarts


def let_go(processes: list[int]) -> None:
    """Let servers go on that were held."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def taken(inject: Callable[[SlurmScene], None], undo: Callable[[SlurmScene], None] | None = None) -> Callable[..., str]:
    """The first server is taken away, while both hold requests; the others go on once a new one is at work."""

    def happen(scene: SlurmScene) -> str:
        process = scene.start()
        held = scene.hold(process)
        watch = Watch(scene, NAMES[0])
        inject(scene)
        if undo is not None:
            wait_for(lambda: scene.worker(NAMES[0])["state"] != "live", PATIENCE, "the loss")
            undo(scene)
        words = watch.words()
        let_go(held)
        scene.finish(process)
        return f"{words}; complete, {scene.failures()} failed attempts"

    return happen


def preempt(scene: SlurmScene) -> None:
    options = ["--partition=urgent", f"--nodelist={scene.node(NAMES[0])}", "--exclusive", "--output=/dev/null"]
    scene.slurm.run("sbatch", "--job-name=urgent", *options, "--wrap=sleep 1000")


def end_urgent(scene: SlurmScene) -> None:
    scene.slurm.run("scancel", "--name=urgent")


def job_of(scene: SlurmScene, name: str) -> str:
    """The number of the job that holds a server."""
    node = scene.node(name)
    return scene.slurm.run("squeue", "--noheader", f"--nodelist={node}", "--format=%i").split()[0]


def time_limit(scene: SlurmScene) -> None:
    scene.slurm.run("scontrol", "update", f"JobId={job_of(scene, NAMES[0])}", "TimeLimit=1")


def drain(scene: SlurmScene) -> None:
    node, job = scene.node(NAMES[0]), job_of(scene, NAMES[0])
    scene.slurm.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
    scene.slurm.run("scancel", job)


def resume(scene: SlurmScene) -> None:
    for node in scene.slurm.nodes:
        with suppress(AssertionError):
            scene.slurm.run("scontrol", "update", f"NodeName={node}", "State=RESUME")


def lose_node(scene: SlurmScene) -> None:
    scene.slurm.kill_node(scene.node(NAMES[0]))


def bring_nodes_back(scene: SlurmScene) -> None:
    for node in scene.slurm.nodes:
        if not scene.slurm.is_up(node):
            scene.slurm.start_node(node)


def untouched(outage: Callable[[SlurmScene], Iterator[None]]) -> Callable[[SlurmScene], str]:
    """SLURM fails for a while; the servers, which go on all the time, are not to notice."""

    def happen(scene: SlurmScene) -> str:
        process = scene.start()
        held = scene.hold(process)
        with contextmanager(outage)(scene):
            let_go(held)
            scene.finish(process)
        assert scene.failures() == 0
        assert [worker["restarts"] for worker in workers(scene.workspace.config)] in ([], [0, 0])
        return "nothing lost, no attempt failed, nothing restarted"

    return happen


def no_slurmd(scene: SlurmScene) -> Iterator[None]:
    for node in scene.slurm.nodes:
        scene.slurm.signal(node, signal.SIGKILL)
    yield
    bring_nodes_back(scene)


def no_controller(scene: SlurmScene) -> Iterator[None]:
    scene.slurm.signal("slurmctld", signal.SIGSTOP)
    time.sleep(OUTAGE_SECONDS)
    yield
    scene.slurm.signal("slurmctld", signal.SIGCONT)


def empty_squeue(scene: SlurmScene) -> str:
    """From the beginning, squeue knows of no job at all."""
    commands = scene.folder / "commands"
    commands.mkdir()
    (commands / "squeue").write_text("#!/bin/sh\nexit 0\n")
    (commands / "squeue").chmod(0o755)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{commands}:{path}"
    try:
        process = scene.start()
    finally:
        os.environ["PATH"] = path
    held = scene.hold(process)
    time.sleep(15.0)
    let_go(held)
    scene.finish(process)
    assert scene.failures() == 0
    return "nothing lost, no attempt failed, nothing restarted"


def impossible(scene: SlurmScene) -> str:
    scene.workers["slurm"] = [{**SHAPE, "constraint": "unicorn"}]
    started = time.monotonic()
    output = scene.run(ok=False)
    seconds = time.monotonic() - started
    assert "Invalid feature specification" in output, output[-3000:]
    assert scene.workspace.trajectories() == {}
    scene.workers["slurm"] = [SHAPE]
    scene.run()
    return f"one clear error after {seconds:.0f} s; complete with a constraint that can be met"


def without_pool(scene: SlurmScene) -> str:
    """The pool is killed: its jobs are cancelled by the next one, which the next client starts."""
    process = scene.start()
    held = scene.hold(process)
    before, started = scene.jobs(), time.monotonic()
    os.kill(pool_process(scene.workspace.config), signal.SIGKILL)
    wait_for(lambda: not before & scene.jobs(), PATIENCE, "the end of the dead pool's jobs")
    ended = time.monotonic() - started
    wait_for(lambda: bool(scene.jobs()), PATIENCE, "new jobs")
    submitted = time.monotonic() - started
    let_go(held)
    scene.finish(process)
    return f"the dead pool's jobs ended after {ended:.1f} s, submitted again after {submitted:.1f} s; complete"


def without_snakemake(scene: SlurmScene) -> str:
    process = scene.start()
    held = scene.hold(process)
    started = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not scene.jobs(), PATIENCE, "the end of all jobs")
    ended = time.monotonic() - started
    let_go(held)
    scene.wait_until_nothing_is_left()
    scene.workspace.run("--unlock")
    scene.run()
    return f"no job left after {ended:.1f} s; complete after a re-run"


def without_anybody(scene: SlurmScene) -> str:
    """Pool and workflow are killed at once, and nobody starts again: the jobs end with their lease."""
    process = scene.start()
    held = scene.hold(process)
    started = time.monotonic()
    os.kill(process.pid, signal.SIGKILL)
    os.kill(pool_process(scene.workspace.config), signal.SIGKILL)
    process.wait()
    let_go(held)
    wait_for(lambda: not scene.jobs(), PATIENCE, "the end of all jobs")
    ended = time.monotonic() - started
    scene.wait_until_nothing_is_left()
    scene.workspace.run("--unlock")
    scene.run()
    end_pool(scene.workspace.config)
    return f"no job left after {ended:.0f} s, by their lease; complete after a re-run"


def fault(expected: str, inject: Callable[..., str]) -> Fault:
    """A fault whose trajectories have to be those of a run on this machine without one."""
    return Fault(expected, inject, SlurmScene, nnsight_trajectories)


MOVED = "requests move to the other server, a job takes the lost one's place at no cost"
UNTOUCHED = "servers go on: an answer that is missing says nothing"
FAULTS = {
    "slurm_preempted": fault(MOVED, taken(preempt, end_urgent)),
    "slurm_time_limit": fault(MOVED, taken(time_limit)),
    "slurm_node_drained": fault(MOVED, taken(drain, resume)),
    "slurm_node_lost": fault(MOVED, taken(lose_node, bring_nodes_back)),
    "slurm_slurmd_sigkill": fault(UNTOUCHED, untouched(no_slurmd)),
    "slurm_controller_stopped": fault(UNTOUCHED, untouched(no_controller)),
    "slurm_squeue_empty": fault(UNTOUCHED, empty_squeue),
    "slurm_impossible_constraint": fault("one clear error at once", impossible),
    "slurm_pool_sigkill": fault("the next pool cancels what is left and submits again", without_pool),
    "slurm_workflow_sigkill": fault("the pool cancels its jobs and ends", without_snakemake),
    "slurm_everything_sigkill": fault("jobs end with their lease", without_anybody),
}
if why_not() is not None:
    FAULTS = {}
