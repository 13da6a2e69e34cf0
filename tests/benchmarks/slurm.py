"""Servers in SLURM jobs: what a start costs beside a local one, and how fast each fault is answered.

It starts a SLURM of two nodes on this machine, which takes the rights of root. Faults are injected into two stub
servers that answer without a pause; seconds are counted from the fault on. `slurm vllm` starts real vLLM servers: what
the cache saves that they share, and whether they answer as a local one does.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.benchmarks import slurm_starts
from tests.benchmarks.measure import report
from tests.server.pool.house import until
from tests.server.pool.slurm_house import SMALL, Jobs, job_of, jobs, node_of, stub_command
from tests.slurm import Slurm, why_not

OUTAGE_SECONDS = 60.0
ANSWER_SECONDS = 0.05


def run(options: list[str]) -> None:
    """The named parts; by default those that take no minutes."""
    if unknown := set(options) - PARTS.keys():
        sys.exit(f"unknown parts of slurm: {', '.join(sorted(unknown))} (known: {', '.join(PARTS)})")
    if reason := why_not():
        report("slurm", skipped=reason)
        return
    with tempfile.TemporaryDirectory(prefix="bench-slurm-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)
        slurm = Slurm(Path(folder) / "cluster")
        slurm.start()
        os.environ["SLURM_CONF"] = str(slurm.config)
        try:
            for part in options or DEFAULT_PARTS:
                PARTS[part](slurm, Path(folder))
        finally:
            os.environ.pop("SLURM_CONF")
            slurm.stop()


def _starts(_slurm: Slurm, folder: Path) -> None:
    slurm_starts.small_starts(folder)


def _vllm(_slurm: Slurm, folder: Path) -> None:
    slurm_starts.vllm_starts(folder)
    slurm_starts.same_answers(folder)


def _faults(slurm: Slurm, folder: Path) -> None:
    for name, (inject, undo, moves) in FAULTS.items():
        place = folder / name
        place.mkdir()
        report("slurm_fault", fault=name, **asyncio.run(_fault(slurm, place, inject, undo, moves)))
        slurm.wait_until_empty()
        slurm.make_idle()


async def _fault(
    slurm: Slurm,
    folder: Path,
    inject: Callable[..., Awaitable[None]],
    undo: Callable[[Slurm, str], object],
    moves: bool,
) -> dict[str, Any]:
    """Ask two servers without a pause; take the first one away, and see how long everything takes."""
    answers: list[float] = []
    failed: list[str] = []
    asked = 0
    ended = asyncio.Event()

    async def client(made: Jobs, index: int) -> None:
        nonlocal asked
        while not ended.is_set():
            asked += 1
            for error in await made.ask(index):
                failed.append(error) if error is not None else answers.append(time.monotonic())

    async with jobs(folder) as made:
        workers = [made.add(lambda: stub_command(ANSWER_SECONDS), SMALL.model_copy(update={"cpus": 3})) for _ in "12"]
        await made.live()
        clients = [asyncio.create_task(client(made, index)) for index in range(4)]
        before, job = len(answers), job_of(workers[0])
        node = node_of(slurm, workers[0])
        started = time.monotonic()
        await inject(slurm, job, node)
        found: dict[str, Any] = {}
        if moves:
            await until(lambda: workers[0].state != "live")
            found["loss_seen"] = time.monotonic() - started
            undo(slurm, node)
            await until(lambda: getattr(workers[0].launcher, "job", None) not in (None, job))
            found["submitted_again"] = time.monotonic() - started
            await until(lambda: workers[0].state == "live")
            found["at_work_again"] = time.monotonic() - started
        else:
            await asyncio.sleep(2.0)
            undo(slurm, node)
        await asyncio.sleep(1.0)
        ended.set()
        await asyncio.gather(*clients)
        found["restarts"] = [worker.restarts for worker in workers]
    times = [started, *(stamp for stamp in answers[before:] if stamp > started)]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    return {
        **found,
        "longest_pause_between_answers": max(pauses),
        "answered": len(times) - 1,
        "attempts_moved": len(failed),
        "lost": asked - len(answers),
    }


async def _preempt(slurm: Slurm, job: str, node: str) -> None:
    options = ["--partition=urgent", f"--nodelist={node}", "--exclusive", "--job-name=urgent", "--output=/dev/null"]
    await asyncio.to_thread(slurm.run, "sbatch", *options, "--wrap=sleep 1000")


async def _time_limit(slurm: Slurm, job: str, node: str) -> None:
    """SLURM warns when it next looks at time limits, which it does twice a minute; the warning is what counts."""
    await asyncio.to_thread(slurm.run, "scancel", "--batch", "--signal=TERM", job)


async def _drain(slurm: Slurm, job: str, node: str) -> None:
    await asyncio.to_thread(slurm.run, "scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")


async def _drain_and_cancel(slurm: Slurm, job: str, node: str) -> None:
    await _drain(slurm, job, node)
    await asyncio.to_thread(slurm.run, "scancel", job)


async def _lose_node(slurm: Slurm, job: str, node: str) -> None:
    await asyncio.to_thread(slurm.kill_node, node)


async def _kill_slurmd(slurm: Slurm, job: str, node: str) -> None:
    slurm.signal(node, signal.SIGKILL)


async def _stop_controller(slurm: Slurm, job: str, node: str) -> None:
    slurm.signal("slurmctld", signal.SIGSTOP)
    await asyncio.sleep(OUTAGE_SECONDS)


def _resume(slurm: Slurm, node: str) -> None:
    slurm.run("scontrol", "update", f"NodeName={node}", "State=RESUME")


FAULTS: dict[str, tuple[Callable[..., Awaitable[None]], Callable[[Slurm, str], object], bool]] = {
    "preempted": (_preempt, lambda slurm, node: slurm.run("scancel", "--name=urgent"), True),
    "time_limit": (_time_limit, lambda slurm, node: None, True),
    "node_drained": (_drain, _resume, False),
    "node_drained_and_jobs_cancelled": (_drain_and_cancel, _resume, True),
    "node_lost": (_lose_node, lambda slurm, node: slurm.start_node(node), True),
    "slurmd_killed": (_kill_slurmd, lambda slurm, node: slurm.start_node(node), False),
    "slurmctld_stopped": (_stop_controller, lambda slurm, node: slurm.signal("slurmctld", signal.SIGCONT), False),
}
PARTS: dict[str, Callable[[Slurm, Path], None]] = {"starts": _starts, "faults": _faults, "vllm": _vllm}
DEFAULT_PARTS = ("starts", "faults")
