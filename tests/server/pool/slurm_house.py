"""Servers that are jobs of a real SLURM, as the pool sees them: a fleet of stubs, guarded as real servers are."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from emoprobe.config.execution.slurm import SlurmShape
from emoprobe.config.files import parse_config
from server.pool.fleet import Fleet, ServerDemand
from server.pool.launch import environment_elsewhere
from server.pool.slurm.cluster import SlurmCluster
from server.pool.slurm.folder import FOLDER, LEASE_SECONDS, JobCommand
from server.pool.slurm.job import SlurmJob
from server.pool.worker import Worker, WorkerLimits
from tests.server.pool.house import SECONDS, until
from tests.slurm import Slurm
from tests.workspace import ROOT

KEY = "sk-nobody-may-read-this"
LIMITS = WorkerLimits(requests=4, restarts=1, start_timeout=SECONDS, hang_timeout=SECONDS, health_interval=0.5)
SMALL = SlurmShape(cpus=1, memory="100M", time="10")


def stub_command(delay: float = 0.0) -> JobCommand:
    line = [sys.executable, "-m", "server.pool.child", "tests.guarded_stub", "{host}", "{port}", str(delay)]
    return JobCommand(line, environment_elsewhere(parse_config({}), gpu=False), Path("/nonexistent"))


def script(code: str) -> JobCommand:
    """A server that is only this program, which finds host and port in its arguments."""
    return JobCommand([sys.executable, "-c", code, "{host}", "{port}"], {"PYTHONPATH": str(ROOT)}, Path("/nonexistent"))


class Jobs:
    """A fleet of SLURM jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cluster = SlurmCluster(folder, poll=0.5)
        self.fleet = Fleet("vllm", "stub", 3, None)

    def add(
        self,
        make: Callable[[], JobCommand] = stub_command,
        shape: SlurmShape = SMALL,
        limits: WorkerLimits = LIMITS,
        queue_timeout: float | None = None,
        lease: float = LEASE_SECONDS,
    ) -> Worker:
        name = f"vllm-{len(self.fleet.workers)}"
        job = SlurmJob(name, shape, make, KEY, self.cluster, self.folder / f"{name}.log", queue_timeout, lease)
        self.fleet.workers.append(Worker(name, "stub", KEY, limits, job, self.fleet.changed))
        return self.fleet.workers[-1]

    async def live(self) -> None:
        """Start the servers and wait until all answer."""
        self.fleet.start()
        await until(lambda: all(worker.state == "live" for worker in self.fleet.workers))

    async def ask(self, index: int = 0) -> list[str | None]:
        """Ask a question; return what became of each attempt."""
        body = {"model": "stub", "messages": [{"role": "user", "content": "1 + 1?"}], "seed": index}
        answer, delivery = await self.fleet.deliver(ServerDemand(index, "/v1/chat/completions", body, SECONDS, dict))
        assert answer["choices"]
        return [attempt.error for attempt in delivery.attempts]


@asynccontextmanager
async def jobs(folder: Path) -> AsyncIterator[Jobs]:
    """Jobs that are ended in the end, and of which then nothing is left in the folder."""
    made = Jobs(folder)
    try:
        async with asyncio.timeout(SECONDS):
            yield made
    finally:
        await made.fleet.stop()
        await made.cluster.close()
        assert not list((folder / FOLDER).glob("*")) if (folder / FOLDER).exists() else True


def job_of(worker: Worker) -> str:
    assert isinstance(worker.launcher, SlurmJob)
    assert worker.launcher.job is not None
    return worker.launcher.job


def node_of(slurm: Slurm, worker: Worker) -> str:
    return slurm.run("squeue", "--noheader", f"--jobs={job_of(worker)}", "--format=%N").strip()


def urgent(slurm: Slurm, *options: str) -> str:
    """A job of somebody more important, for which all others have to go."""
    options = options or ("--nodes=2", "--exclusive")
    return slurm.run(
        "sbatch", "--parsable", "--partition=urgent", "--output=/dev/null", *options, "--wrap=sleep 1000"
    ).strip()
