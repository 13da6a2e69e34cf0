"""Servers in jobs of a real SLURM that are taken away in every way there is, and SLURM's own daemons that fail.

A fault comes while both servers are held in the middle of a request, so that there is always something to lose; the
second one is held until the first is back, so that nobody else can answer meanwhile. It takes the rights of root; where
SLURM cannot be started there are no such faults.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from server.guard import NONCE_VARIABLE
from server.pool.slurm.folder import FOLDER
from tests.chaos.cluster import NAMES, SHAPE, Impostor, SlurmScene, impostor_at, let_go
from tests.chaos.scene import Fault, nnsight_trajectories
from tests.conftest import PATIENCE
from tests.slurm import why_not
from tests.workflow.pool import pool_process
from tests.workspace import wait_for

OUTAGE_SECONDS = 60.0


@contextmanager
def held_servers(scene: SlurmScene) -> Iterator[None]:
    """A run whose servers are held in the middle of a request as long as the block lasts; then it goes to its end."""
    process = scene.start()
    servers = scene.hold(process)
    yield
    let_go(servers)
    scene.finish(process)


def taken(inject: Callable[[SlurmScene], None], undo: Callable[[SlurmScene], None] | None = None) -> Callable[..., str]:
    """The first server is taken away; where it has nowhere to go, what took it goes away once the loss is seen."""

    def happen(scene: SlurmScene) -> str:
        with held_servers(scene):
            scene.begin()
            inject(scene)
            if undo is not None:
                wait_for(scene.is_lost, PATIENCE, "the loss")
                undo(scene)
            scene.note_return()
        return f"complete, {scene.failures()} attempts moved"

    return happen


def preempt(scene: SlurmScene) -> None:
    options = ["--partition=urgent", f"--nodelist={scene.node(NAMES[0])}", "--exclusive", "--output=/dev/null"]
    scene.slurm.run("sbatch", "--job-name=urgent", *options, "--wrap=sleep 1000")


def end_urgent(scene: SlurmScene) -> None:
    scene.slurm.run("scancel", "--name=urgent")


def time_limit(scene: SlurmScene) -> None:
    """SLURM looks at time limits twice a minute; what is counted begins with its warning."""
    scene.slurm.run("scontrol", "update", f"JobId={scene.job_of(NAMES[0])}", "TimeLimit=1")
    log = scene.workspace.layout.root / f"logs/servers/{NAMES[0]}.log"
    wait_for(lambda: "SLURM wants this job to end" in log.read_text(), PATIENCE, "SLURM's warning")
    scene.begin_clock()


def drain(scene: SlurmScene) -> None:
    node, job = scene.node(NAMES[0]), scene.job_of(NAMES[0])
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


def stale_address(scene: SlurmScene) -> str:
    """A node is lost, and at the address that its job has left another program listens."""
    with held_servers(scene):
        address = scene.address(NAMES[0])
        assert address is not None
        pool = pool_process(scene.workspace.config)
        scene.begin()
        os.kill(pool, signal.SIGSTOP)  # so that it looks when the other program listens, not before
        lose_node(scene)
        with impostor_at(address) as impostor:
            os.kill(pool, signal.SIGCONT)
            wait_for(scene.is_lost, PATIENCE, "the loss")
            bring_nodes_back(scene)
            scene.note_return()
    return f"complete; {told_nothing(impostor)}"


def port_taken(scene: SlurmScene) -> str:
    """While the only server loads, another program takes its port."""
    scene.workers["slurm"] = [{**SHAPE, "count": 1}]
    process = scene.start()
    scene.wait_for(process, lambda: scene.address(NAMES[0]) is not None, "an address")
    address = scene.address(NAMES[0])
    assert address is not None
    with impostor_at(address) as impostor:
        scene.begin()
        scene.note_return()
    error = scene.worker(NAMES[0])["error"]
    assert "took its port" in (error or ""), error
    scene.finish(process)
    return f"complete; {told_nothing(impostor)}"


def told_nothing(impostor: Impostor) -> str:
    """What a program at a server's address was asked: for a proof, and nothing else."""
    assert impostor.heard
    assert {path for path, _ in impostor.heard} == {"/health"}, impostor.heard
    assert not any("authorization" in headers.lower() for _, headers in impostor.heard)
    return f"the other program was asked {len(impostor.heard)} times for a proof, and given no key"


def untouched(
    inject: Callable[[SlurmScene], None], undo: Callable[[SlurmScene], None], seconds: float
) -> Callable[[SlurmScene], str]:
    """SLURM fails for some seconds; the servers, which go on all the time, are not to notice."""

    def happen(scene: SlurmScene) -> str:
        process = scene.start()
        servers = scene.hold(process)
        scene.begin()
        inject(scene)
        let_go(servers[:1])  # the other one is in the middle of a request as long as it lasts
        scene.note_answer()
        wait_for(lambda: scene.elapsed() >= seconds, PATIENCE, "the end of the outage")
        assert scene.restarts() == [0, 0]
        undo(scene)
        let_go(servers)
        scene.finish(process)
        assert scene.failures() == 0
        return "complete, no attempt failed, nothing restarted"

    return happen


def kill_slurmds(scene: SlurmScene) -> None:
    for node in scene.slurm.nodes:
        scene.slurm.signal(node, signal.SIGKILL)


def stop_controller(scene: SlurmScene) -> None:
    scene.slurm.signal("slurmctld", signal.SIGSTOP)


def continue_controller(scene: SlurmScene) -> None:
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
    time.sleep(15.0)  # longer than the pool takes between two looks
    scene.begin()
    let_go(held)
    scene.note_answer()
    assert scene.restarts() == [0, 0]
    scene.finish(process)
    assert scene.failures() == 0
    return "complete, no attempt failed, nothing restarted"


def impossible(scene: SlurmScene) -> str:
    scene.workers["slurm"] = [{**SHAPE, "constraint": "unicorn"}]
    scene.begin_clock()
    output = scene.run(ok=False)
    scene.note("told", lambda: True)
    assert "Invalid feature specification" in output, output[-3000:]
    assert scene.workspace.trajectories() == {}
    scene.workers["slurm"] = [SHAPE]
    scene.run()
    return "one clear error; complete with a constraint that can be met"


def without_pool(scene: SlurmScene) -> str:
    """The pool is killed: its jobs are cancelled by the next one, which the next client starts."""
    process = scene.start()
    held = scene.hold(process)
    left = scene.jobs()
    scene.begin()
    os.kill(pool_process(scene.workspace.config), signal.SIGKILL)
    scene.note("old_jobs_ended", lambda: not left & scene.jobs())
    scene.note_return()
    let_go(held)
    scene.finish(process)
    return "complete"


def killed(*, pool_too: bool) -> Callable[[SlurmScene], str]:
    """Snakemake is killed, or pool and all: every job ends, and the next run goes on."""

    def happen(scene: SlurmScene) -> str:
        process = scene.start()
        held = scene.hold(process)
        pool = pool_process(scene.workspace.config)
        scene.begin()
        os.kill(process.pid, signal.SIGKILL)
        if pool_too:
            os.kill(pool, signal.SIGKILL)
        process.wait()
        scene.note("jobs_ended", lambda: not scene.jobs())
        let_go(held)
        wait_for(lambda: not scene.processes_left(), PATIENCE, "no process left")
        scene.workspace.run("--unlock")
        scene.run()
        return "complete after a re-run"

    return happen


def key_everywhere(scene: SlurmScene) -> str:
    """Nothing fails: while servers are at work, and after the end, their key is looked for in all that others can read."""
    process = scene.start()
    held = scene.hold(process)
    key = scene.key().encode()
    texts = {"scontrol": scene.slurm.run("scontrol", "show", "job", "--details").encode()}
    for job in scene.jobs():
        texts[f"script of {job}"] = scene.slurm.run("scontrol", "write", "batch_script", str(job), "-").encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            texts[f"arguments of {entry.name}"] = (entry / "cmdline").read_bytes()
            environment = (entry / "environ").read_bytes()
            if f"{NONCE_VARIABLE}=".encode() not in environment:  # all but the servers' own
                texts[f"environment of {entry.name}"] = environment
    texts |= files_below(scene.folder) | files_below(scene.slurm.folder)
    open_to_others = [path for path in (scene.folder / "results" / FOLDER).rglob("*") if path.stat().st_mode & 0o077]
    assert not open_to_others, open_to_others
    let_go(held)
    scene.finish(process)
    texts |= {f"{name}, after the end": text for name, text in files_below(scene.folder).items()}
    found = [name for name, text in texts.items() if key in text]
    assert not found, found
    return f"looked for in {len(texts)} arguments, environments, scripts, logs and files: nowhere"


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, but no socket or pipe."""
    found = {}
    for path in folder.rglob("*"):
        with suppress(OSError):
            if stat.S_ISREG(path.lstat().st_mode):
                found[str(path)] = path.read_bytes()
    return found


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
    "slurm_slurmd_sigkill": fault(UNTOUCHED, untouched(kill_slurmds, bring_nodes_back, 0.0)),
    "slurm_controller_stopped": fault(UNTOUCHED, untouched(stop_controller, continue_controller, OUTAGE_SECONDS)),
    "slurm_squeue_empty": fault(UNTOUCHED, empty_squeue),
    "slurm_impossible_constraint": fault("one clear error at once", impossible),
    "slurm_pool_sigkill": fault("the next pool cancels what is left and submits again", without_pool),
    "slurm_workflow_sigkill": fault("the pool cancels its jobs and ends", killed(pool_too=False)),
    "slurm_everything_sigkill": fault("jobs end with their lease", killed(pool_too=True)),
    "slurm_stale_address": fault(MOVED + "; nobody else is believed", stale_address),
    "slurm_port_taken": fault("the job is submitted again at no cost; nobody else is believed", port_taken),
    "slurm_key": fault("the key is nowhere to be read", key_everywhere),
}
if why_not() is not None:
    FAULTS = {}
