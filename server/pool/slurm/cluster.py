"""SLURM: its commands, the options of jobs, the state of all jobs of this pool, and what the end of a job means."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoprobe.config.execution.slurm import SlurmShape
from server.pool.launcher import Exit, LaunchError
from server.pool.local_process import PORT_TAKEN
from server.pool.slurm.folder import RENEW_SECONDS, PoolFolder

log = logging.getLogger(__name__)

POLL_SECONDS = 10.0
COMMAND_SECONDS = 30.0
CANCEL_SECONDS = 5.0
PENDING = frozenset({"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
STANDING = frozenset({"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"})
# What sbatch says where another try may do better; everything else is a request that SLURM will not have.
_TRANSIENT = (
    "unable to contact", "socket timed out", "connection refused", "temporarily", "unexpected message received",
    "zero bytes were transmitted", "standby mode", "transport", "broken pipe", "connection reset", "munge",
    "authentication", "submit job limit", "maxsubmitjob", "pending submissions", "communication", "dns srv", "no route",
)  # fmt: skip
_NOTHING_TO_CANCEL = ("no active jobs", "invalid job id", "already completing", "already completed")
# The environment of SLURM's commands, which sbatch hands on to the job: nothing else of the user's goes there.
_COMMAND_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "SLURM_CONF")
# Sites and users set defaults of sbatch in such variables; these would change what the pool relies on.
_NO_DEFAULTS = ("SBATCH_EXPORT", "SBATCH_GET_USER_ENV", "SBATCH_JOB_NAME", "SBATCH_REQUEUE", "SBATCH_SIGNAL")


class UnreachableError(RuntimeError):
    """SLURM does not answer for the moment; the message is its own."""


@dataclass(frozen=True)
class JobState:
    """State of a job in `squeue`, with the reason why it waits and its node."""

    state: str
    reason: str
    nodes: str

    @property
    def waits(self) -> bool:
        """Whether it is in the queue."""
        return self.state in PENDING

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return not self.waits and self.state not in STANDING


class SlurmCluster:
    """Submits the jobs of one pool, follows them with one squeue for all, and cancels them.

    Args:
        results: the folder with the experiments' folders, on a file system that the nodes share.
        poll: seconds between two looks at the queue.
    """

    def __init__(self, results: Path, poll: float = POLL_SECONDS) -> None:
        self.name = f"emoprobe-{secrets.token_hex(6)}"
        self.results = results
        self._poll_seconds = poll
        self._states: dict[str, JobState] = {}
        self._known: set[str] = set()
        self._submitting = 0
        self._folder: PoolFolder | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._looking: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> PoolFolder:
        """The pool's folder. The first call makes it and ends what dead pools have left."""
        async with self._opening:
            if self._folder is None:
                folder = await asyncio.to_thread(PoolFolder, self.results, self.name)
                self._spawn(self._renew(folder))
                for name, path in await asyncio.to_thread(folder.leftovers):
                    log.warning("jobs %s are left from a run that is dead; they are cancelled", name)
                    # Without their folder jobs end themselves, and those that wait in the queue as soon as they start.
                    await asyncio.to_thread(shutil.rmtree, path, ignore_errors=True)
                    self._spawn(self._cancel(f"--name={name}"))
                self._spawn(self._follow())
                self._folder = folder
        return self._folder

    async def submit(self, options: list[str], script: str) -> str:
        """Submit a job; return its number.

        Raises:
            UnreachableError: SLURM does not answer; another try may be accepted.
            LaunchError: SLURM refuses the job.
        """
        # A requeued job would start with a folder that is gone: the pool submits again itself.
        line = ["sbatch", "--parsable", "--no-requeue", "--signal=B:TERM@90", f"--job-name={self.name}", *options]
        self._submitting += 1
        try:
            status, output, error = await self._run(line, script)
            if status != 0:
                if any(words in error.lower() for words in _TRANSIENT):
                    raise UnreachableError(error)
                raise LaunchError(f"SLURM refuses its job: {error}\nWhat to do: change workers.slurm.")
            number = output.strip().splitlines()[-1].partition(";")[0]
            self._known.add(number)
        finally:
            self._submitting -= 1
        return number

    def state(self, job: str) -> JobState | None:
        """Return the last known state of a job; None where there is none yet."""
        return self._states.get(job)

    async def look(self) -> None:
        """Ask SLURM about all jobs now; several who ask at once share one answer."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        await asyncio.shield(self._looking)

    async def node_is_draining(self, nodes: str) -> bool:
        """Return whether the administrators are taking nodes out of service, as far as SLURM answers."""
        try:
            _, output, _ = await self._run(["sinfo", "--noheader", f"--nodes={nodes}", "--format=%T"])
        except UnreachableError:
            return False
        return any(state.startswith(("drain", "down", "maint", "fail", "reboot")) for state in output.split())

    async def cancel(self, job: str) -> None:
        """Cancel a job. Where SLURM does not answer, go on trying in the background."""
        cancelling = self._spawn(self._cancel(job))
        await asyncio.wait({cancelling}, timeout=CANCEL_SECONDS)

    async def close(self) -> None:
        """Cancel what is left and take the pool's folder away."""
        if self._folder is None:
            return
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._folder.remove()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._cancel(f"--name={self.name}"), CANCEL_SECONDS)
        self._folder = None

    async def _cancel(self, what: str) -> None:
        pause = 1.0
        while True:
            try:
                status, _, error = await self._run(["scancel", "--me", what])
            except UnreachableError as problem:
                status, error = 1, str(problem)
            if status == 0 or any(words in error.lower() for words in _NOTHING_TO_CANCEL):
                return
            log.warning("scancel %s: %s", what, error)
            await asyncio.sleep(pause)
            pause = min(60.0, 2 * pause)

    async def _renew(self, folder: PoolFolder) -> None:
        while True:
            try:
                await asyncio.to_thread(folder.renew)
            except OSError as error:
                log.warning("the lease of the SLURM jobs cannot be renewed: %s", error)
            except Exception:  # without the lease every job ends
                log.exception("the lease of the SLURM jobs cannot be renewed")
            await asyncio.sleep(RENEW_SECONDS)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            if self._known:
                try:
                    await self.look()
                except Exception:  # nobody else follows the jobs
                    log.exception("the SLURM jobs cannot be looked at; another try follows")

    async def _look(self) -> None:
        """Take over what squeue says. An answer that is empty, or none at all, says nothing about any job."""
        line = ["squeue", "--me", "--noheader", "--states=all", f"--name={self.name}", "--format=%i|%T|%r|%N"]
        asked = time.monotonic()
        try:
            status, output, error = await self._run(line)
        except UnreachableError as problem:
            status, output, error = 1, "", str(problem)
        if status != 0:
            log.warning("squeue says nothing after %.1f s: %s", time.monotonic() - asked, error)
            return
        for fields in (row.split("|") for row in output.splitlines()):
            if len(fields) == 4:
                self._states[fields[0]] = JobState(*fields[1:])
        # A submission whose answer was lost has made a job all the same.
        strangers = self._states.keys() - self._known
        for job in strangers if not self._submitting else ():
            self._known.add(job)
            if not self._states[job].ended:
                self._spawn(self._cancel(job))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, line: list[str], text: str = "") -> tuple[int, str, str]:
        """Run one of SLURM's commands: exit status, output, and what it complained about in one line.

        Raises:
            LaunchError: there is no such command.
            UnreachableError: it takes too long, or cannot be started.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *line,
                env=command_environment(),
                cwd="/",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError:
            raise LaunchError(f"{line[0]} is not on the path; workers.slurm needs SLURM's commands") from None
        except OSError as problem:  # no memory or no number left for another process, for the moment
            raise UnreachableError(f"{line[0]} cannot be started: {problem.strerror or problem}") from None
        try:
            output, error = await asyncio.wait_for(process.communicate(text.encode()), COMMAND_SECONDS)
        except TimeoutError:
            raise UnreachableError(f"{line[0]} has not answered within {COMMAND_SECONDS:g} s") from None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        complaint = " ".join(error.decode(errors="replace").replace(f"{line[0]}: error: ", "").split())
        return process.returncode or 0, output.decode(errors="replace"), complaint


def command_environment() -> dict[str, str]:
    """The environment of SLURM's commands, and so of the jobs: a list of names, and the defaults of sbatch."""
    kept = {name: os.environ[name] for name in _COMMAND_VARIABLES if name in os.environ}
    defaults = {
        name: value for name, value in os.environ.items() if name.startswith("SBATCH_") and name not in _NO_DEFAULTS
    }
    return {**kept, **defaults}


# SLURM took the job away: the server has done nothing wrong.
TAKEN = frozenset({"PREEMPTED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE", "REVOKED"})


def judge(job: str, state: JobState | None, reason: str, log_lines: list[str]) -> Exit:
    """Return what the end of a job means: why it ended, and whether it counts as a restart of its server.

    Args:
        job: its number.
        state: what SLURM says of it, if anything.
        reason: what is known of its end besides.
        log_lines: the last lines of its output.
    """
    if state is not None and state.state in TAKEN:
        return Exit(f"job {job}: {state.state}", again=True, counts=False)
    if state is not None and state.state == "OUT_OF_MEMORY":
        return Exit(f"job {job}: OUT_OF_MEMORY; raise memory in workers.slurm", again=True)
    if PORT_TAKEN in "\n".join(log_lines):
        return Exit(f"{reason}, as another program took its port", again=True, counts=False)
    return Exit(reason, again=True)


def judge_leaving(job: str, state: JobState | None, *, draining: bool) -> Exit:
    """SLURM has told a job to end. That costs nothing, unless somebody has cancelled it on a node that stays."""
    if state is not None and state.state == "CANCELLED" and not draining:
        return Exit(f"job {job}: CANCELLED", again=True)
    said = f" ({state.state})" if state is not None else ""
    return Exit(f"SLURM wants job {job} to end{said}", again=True, counts=False)


def judge_status(job: str, state: JobState | None, status: int, log_lines: list[str]) -> Exit:
    """The server of a job has ended by itself, with this status of its process."""
    words = f"signal {-status}" if status < 0 else f"exit status {status}"
    how = f"its server ended {'by' if status < 0 else 'with'} {words}"
    return judge(job, state, f"job {job}: {how}", log_lines)


def sbatch_options(shape: SlurmShape, log_path: Path) -> list[str]:
    """The options of sbatch for a job of a shape. Nothing in them is secret: everybody can read them."""
    output = str(log_path).replace("%", "%%")
    options = ["--nodes=1", "--ntasks=1", f"--cpus-per-task={shape.cpus}", f"--mem={shape.memory}"]
    options += [f"--time={shape.time}", f"--output={output}", "--open-mode=append", "--chdir=/"]
    for name in ("partition", "gres", "constraint"):
        value = getattr(shape, name)
        options += [f"--{name}={value}"] if value is not None else []
    return [*options, *shape.extra]
