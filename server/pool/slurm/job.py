"""A model server that is a SLURM job."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

from emoprobe.config.execution.slurm import SlurmShape
from server import supervisor
from server.pool.launcher import EndedError, Exit, Launcher, LaunchError
from server.pool.server_log import LogTail
from server.pool.slurm.cluster import (
    JobState,
    SlurmCluster,
    UnreachableError,
    judge,
    judge_leaving,
    judge_status,
    sbatch_options,
)
from server.pool.slurm.folder import (
    LEASE_SECONDS,
    JobAddress,
    JobCommand,
    JobFolder,
    job_file,
    job_script,
)

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
# A job that runs says where it listens within a second; a file system may take its time to show it.
NO_ADDRESS_SECONDS = 300.0
LONGEST_PAUSE = 300.0
STEADY_SECONDS = 600.0
ERROR_LINES = 25
# Why a job waits that no waiting helps.
_NEVER = frozenset(
    {
        "BadConstraints", "AccountNotAllowed", "QOSNotAllowed", "InvalidAccount", "InvalidQOS",
        "DependencyNeverSatisfied", "PartitionTimeLimit", "PartitionNodeLimit",
    }
)  # fmt: skip


class SlurmJob(Launcher):
    """Starts a server as a SLURM job, whose output is appended to a log.

    Args:
        name: the worker's.
        shape: what the job asks for.
        make: the command of each start.
        api_key: the server's key.
        cluster: submits the job.
        log_path: where its output goes.
        queue_timeout: seconds that it may wait in the queue; None: as long as it takes.
        lease: seconds without a sign of the pool after which the job ends itself.
        placed: is told what each job runs on.
    """

    foreign = False

    def __init__(
        self,
        name: str,
        shape: SlurmShape,
        make: Callable[[], JobCommand],
        api_key: str,
        cluster: SlurmCluster,
        log_path: Path,
        queue_timeout: float | None = None,
        lease: float = LEASE_SECONDS,
        placed: Callable[[str], None] = lambda hardware: None,
    ) -> None:
        self._name, self._shape, self._make, self._api_key = name, shape, make, api_key
        self._cluster, self._tail = cluster, LogTail(log_path)
        self._queue_timeout, self._lease, self._placed_on = queue_timeout, lease, placed
        self._starts = self._taken = 0
        self._since = 0.0
        self._waits = ""
        self._folder: JobFolder | None = None
        self._address: JobAddress | None = None
        self._submitting: asyncio.Task[str] | None = None
        self._follower: asyncio.Task[None] | None = None
        self._ended: asyncio.Future[Exit] | None = None
        self.job: str | None = None

    @property
    def nonce(self) -> str:
        """Secret that only this job's server knows."""
        return self._address.nonce if self._address is not None else ""

    @property
    def hardware(self) -> str | None:
        """Hardware of the job, as it reports it."""
        return self._address.hardware if self._address is not None else None

    async def start(self) -> str:
        """Submit the job and wait until it runs and has a port; return its URL.

        Raises:
            LaunchError: SLURM refuses it, or will never start it.
            EndedError: it ended before it had a port.
        """
        await self._pause()
        self._tail.begin()
        self._ended = asyncio.get_running_loop().create_future()
        self.job = await self._submit()
        log.info("%s: submitted as job %s", self._name, self.job)
        self._address = await self._placed(self.job)
        self._since, self._waits = time.monotonic(), ""
        place = self._address
        log.info("%s: job %s on %s (%s) at %s", self._name, self.job, place.node, place.hardware, place.url)
        self._placed_on(place.hardware)
        self._follower = asyncio.create_task(self._follow(self.job))
        return self._address.url

    def exited(self) -> Exit | None:
        """Return how the job ended; None while it runs."""
        return self._ended.result() if self._ended is not None and self._ended.done() else None

    async def wait(self) -> Exit:
        """Wait until the job ends, or SLURM wants it to."""
        assert self._ended is not None
        return await asyncio.shield(self._ended)

    async def lost(self, reason: str, *, listening: bool) -> Exit:
        """Ask the job and SLURM what became of it. Where neither knows, and nobody listens, its node is lost."""
        assert self._ended is not None
        await asyncio.wait({self._ended}, timeout=1.0)
        if not self._ended.done():
            await self._cluster.look()
            state = self._state()
            if state is not None and state.ended:
                self._end(self._judge(state, f"job {self.job}: {state.state}"))
            else:
                known = f"SLURM says {state.state}" if state is not None else "SLURM says nothing"
                self._end(Exit(f"{reason}; {known} of job {self.job}", again=True, counts=listening))
        return self._ended.result()

    async def stop(self) -> None:
        """Take the job's folder away, which ends it, and cancel it. Where this is cancelled, call it again."""
        if self._follower is not None:
            self._follower.cancel()
        if self._folder is not None:
            await asyncio.to_thread(self._folder.remove)
        if self._submitting is not None:
            await asyncio.wait({self._submitting})
            if not self._submitting.cancelled() and self._submitting.exception() is None:
                self.job = self._submitting.result()
        if self.job is not None:
            await self._cluster.cancel(self.job)
        self._folder = self._submitting = self._follower = self.job = None
        self._waits = ""

    def waits(self) -> str:
        """Return why the job does not run yet."""
        return self._waits

    def log_lines(self, count: int) -> list[str]:
        """The last lines of its output since it was submitted."""
        return self._tail.lines(count)

    def log_name(self) -> str:
        """The path of its log."""
        return str(self._tail.path)

    async def _pause(self) -> None:
        """Wait a little longer each time that SLURM has taken the server away, see `_end`."""
        if self._taken:
            seconds = min(LONGEST_PAUSE, 2.0 ** (self._taken - 1))
            self._waits = f"is submitted again in {seconds:.0f} s"
            await asyncio.sleep(seconds)

    async def _submit(self) -> str:
        """Submit the job, as often as it takes until SLURM answers."""
        folder, pause = await self._cluster.open(), 2.0
        options = sbatch_options(self._shape, self._tail.path)
        while True:
            self._waits = "is submitted to SLURM"
            command, self._starts = self._make(), self._starts + 1
            path = folder.path / f"{self._name}-{self._starts}"
            job = job_file(command, self._shape, self._lease)
            self._folder = await asyncio.to_thread(JobFolder, path, job, self._api_key)
            self._submitting = asyncio.create_task(self._cluster.submit(options, job_script(path)))
            try:
                return await asyncio.shield(self._submitting)
            except UnreachableError as error:
                # The answer may be all that was lost. Such a job finds no folder and ends.
                await asyncio.to_thread(self._folder.remove)
                self._waits = f"cannot be submitted, tried again: {error}"
                log.warning("%s: %s", self._name, error)
            finally:
                if self._submitting.done():
                    self._submitting = None
            await asyncio.sleep(pause)
            pause = min(30.0, 2 * pause)

    async def _placed(self, job: str) -> JobAddress:
        """Wait until the job says where its server listens.

        Raises:
            LaunchError: the job says that it cannot start a server, or SLURM will not start the job.
            EndedError: the job ended.
        """
        assert self._folder is not None
        submitted, running = time.monotonic(), 0.0
        await self._cluster.look()
        while True:
            address = await asyncio.to_thread(self._folder.address)
            if address is not None:
                return address
            ended = await asyncio.to_thread(self._folder.note, supervisor.ENDED)
            if ended is not None and "reason" in ended:
                raise LaunchError(f"job {job}: {ended['reason']}")
            state, now = self._cluster.state(job), time.monotonic()
            if state is not None and state.ended:
                raise EndedError(self._end(self._judge(state, self._unplaced(state))))
            if state is None or state.waits:
                self._waits = f"job {job} waits in SLURM's queue ({state.reason if state else 'unknown'})"
                self._check_queue(job, state, now - submitted)
            else:
                running = running or now
                self._waits = f"job {job} starts on {state.nodes}"
                if now - running > NO_ADDRESS_SECONDS:
                    raise LaunchError(self._unplaced(state))
            await asyncio.sleep(LOOK_SECONDS)

    def _check_queue(self, job: str, state: JobState | None, seconds: float) -> None:
        """Give up a job that will never start, or that has waited too long.

        Raises:
            LaunchError: it does not start; the message has the reason that SLURM gives.
        """
        if state is not None and state.reason in _NEVER:
            raise LaunchError(f"SLURM will never start its job {job}: {state.reason}; change workers.slurm")
        if self._queue_timeout is not None and seconds > self._queue_timeout:
            reason = state.reason if state is not None else "SLURM does not say why"
            limit = f"{self._queue_timeout:g} s (workers.queue_timeout)"
            raise LaunchError(f"its job {job} was still in SLURM's queue after {limit}: {reason}")

    def _unplaced(self, state: JobState) -> str:
        """Describe a job that has no address yet."""
        assert self._folder is not None
        return (
            f"job {self.job} ({state.state}) has not said where it listens: does its node share "
            f"{self._folder.path.parent} and {sys.executable}?"
        )

    async def _follow(self, job: str) -> None:
        """Notice that the job ends. An error ends the server: nobody else would notice its end."""
        try:
            await self._notice_end(job)
        except Exception as error:
            log.exception("%s: job %s cannot be followed", self._name, job)
            self._end(Exit(f"job {job} cannot be followed ({type(error).__name__}: {error})", again=True))

    async def _notice_end(self, job: str) -> None:
        """Wait for the end of the job, from what it says and from what SLURM says, whichever comes first."""
        assert self._folder is not None
        while True:
            leaving = await asyncio.to_thread(self._folder.note, supervisor.LEAVING)
            ended = await asyncio.to_thread(self._folder.note, supervisor.ENDED)
            state = self._cluster.state(job)
            if leaving is not None or ended is not None:
                await self._cluster.look()
                state = self._cluster.state(job)
            if leaving is not None:
                self._end(judge_leaving(job, state, draining=await self._is_draining(state)))
            elif ended is not None:
                self._end(judge_status(job, state, int(ended["status"]), self.log_lines(ERROR_LINES)))
            elif state is not None and state.ended:
                self._end(self._judge(state, f"job {job}: {state.state}"))
            else:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            return

    async def _is_draining(self, state: JobState | None) -> bool:
        """Return whether a job was cancelled on a node that is taken out of service."""
        if state is None or state.state != "CANCELLED":
            return False
        return await self._cluster.node_is_draining(state.nodes)

    def _judge(self, state: JobState | None, reason: str) -> Exit:
        return judge(str(self.job), state, reason, self.log_lines(ERROR_LINES))

    def _end(self, ended: Exit) -> Exit:
        """The server is gone: let everybody know who waits for that. Where it had stood for long, count anew."""
        assert self._ended is not None
        if not self._ended.done():
            stood = time.monotonic() - self._since if self._since else 0.0
            self._taken = (0 if stood > STEADY_SECONDS else self._taken) + (not ended.counts)
            self._since = 0.0
            self._ended.set_result(ended)
        return self._ended.result()

    def _state(self) -> JobState | None:
        return self._cluster.state(self.job) if self.job is not None else None
