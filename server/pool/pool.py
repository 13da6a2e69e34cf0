"""The pool's process: clients at a port, workflows that it must not outlive, servers that do the work."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
from collections import Counter
from pathlib import Path
from typing import Any, get_args

from emoprobe.config.science.judge import JudgeGrader
from emoprobe.conversations.judging import BlindError
from emoprobe.conversations.rendering import PromptError
from emoprobe.conversations.samples import DataError
from emoprobe.conversations.variants import VariantError
from emoprobe.models.directory import ModelError
from emoprobe.models.placement import PlacementError
from emoprobe.models.resolved import ResolveError
from emoprobe.results.activation_folder import ActivationError
from emoprobe.results.record import DamagedError, what_to_do
from server.pool import api, jobs, judge, outcomes, steering
from server.pool.address import PoolAddress, PoolStatus
from server.pool.api_budget import OverBudgetError
from server.pool.fleet import Fleet, FleetDownError, GaveUpError, RefusedError
from server.pool.fleets import Fleets
from server.pool.launch import Kind
from server.pool.launcher import LaunchError
from server.pool.outcomes import OutcomesError
from server.pool.owners import Owners
from server.pool.protocol import (
    JOBS,
    STATUS,
    Caller,
    CaptureJob,
    GenerateJob,
    Job,
    JudgeJob,
    OutcomesJob,
    ProtocolError,
    ScoreJob,
    SteerJob,
    TokensJob,
    decode,
    decode_remaining,
)
from server.pool.run import ExperimentJobs, PlanError, Run
from server.pool.steering import SteeringJobError

log = logging.getLogger(__name__)

GREETING_SECONDS = 10.0  # in which a client has to send the pool's token
PATIENCE_SECONDS = 2.0
MAX_STRANGERS = 512  # connections that have not sent it yet; past them the oldest makes room


class Pool:
    """Answers clients until its last owner has died.

    Args:
        address_path: where its address is published.
        fleets: the model servers.
        keep_alive: seconds that it waits for another owner then.
    """

    def __init__(self, address_path: Path, fleets: Fleets, keep_alive: float = 0.0) -> None:
        self._address_path, self._fleets, self._keep_alive = address_path, fleets, keep_alive
        self._token = ""
        self._runs: dict[Caller, Run] = {}
        self._owners = Owners(self._owner_ended)
        self._running: Counter[str] = Counter()
        self._closing = asyncio.Event()
        self._strangers: dict[asyncio.Task[Any], asyncio.Timeout] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, owner: int) -> None:
        """Listen until there is no owner left, then end every server that was started."""
        self._adopt(owner)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.close)
        # Every job in flight is a connection, and with many they come at once.
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0, backlog=4096)
        address = PoolAddress.new(server.sockets[0].getsockname()[1])
        self._token = address.token
        address.write(self._address_path)
        log.info("pool %d listens at port %d", os.getpid(), address.port)
        await self._closing.wait()
        log.info("pool %d ends", os.getpid())
        # The next run starts a pool of its own rather than talk to one that is ending.
        if PoolAddress.read(self._address_path) == address:
            self._address_path.unlink(missing_ok=True)
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await self._fleets.stop()

    def close(self) -> None:
        """End `serve`."""
        self._closing.set()

    def _adopt(self, owner: int) -> None:
        """Live at least as long as a process."""
        if not self._owners.adopt(owner) and not self._owners:
            self._closing.set()

    def _owner_ended(self, owner: int) -> None:
        if not self._owners:
            asyncio.get_running_loop().call_later(self._keep_alive, self._close_if_unowned)
        self._runs = {caller: run for caller, run in self._runs.items() if caller.owner != owner}
        self._fleets.forget_failed()

    def _close_if_unowned(self) -> None:
        if not self._owners:
            self._closing.set()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            greeting = await self._greeting(task, reader)
            token, _, line = os.fsdecode(greeting).rstrip("\n").partition("\t")
            if not secrets.compare_digest(os.fsencode(token), self._token.encode()):
                pass
            elif line == JOBS:
                await self._stream(reader, writer)
            elif line == STATUS:
                writer.write(json.dumps(self.status()).encode())
                await writer.drain()
        except (ConnectionError, TimeoutError, asyncio.CancelledError):
            pass
        except ValueError as error:  # whoever connects may send anything
            log.warning("a request that cannot be read: %s", error)
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _greeting(self, task: asyncio.Task[Any], reader: asyncio.StreamReader) -> bytes:
        """The first line of a client: everybody on this machine can connect, and not all of them will send one.

        Raises:
            TimeoutError: it took too long, or there were too many.
            ValueError: it is too long.
        """
        now = asyncio.get_running_loop().time()
        if len(self._strangers) >= MAX_STRANGERS:
            # A crowd of clients that come at once have just not been read yet.
            late = now + GREETING_SECONDS - PATIENCE_SECONDS
            waiting = (clock for clock in self._strangers.values() if not clock.expired())
            oldest = next((clock for clock in waiting if now < (clock.when() or 0.0) < late), None)
            if oldest is not None:
                oldest.reschedule(now)
        async with asyncio.timeout(GREETING_SECONDS) as clock:
            self._strangers[task] = clock
            try:
                return await reader.readline()
            finally:
                del self._strangers[task]

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Do what one client asks for, many jobs at a time, until it goes away."""
        running: set[asyncio.Task[None]] = set()

        async def answer(number: int, caller: Caller, job: Job) -> None:
            reason = await self._answer(caller, job)
            writer.write(f"{json.dumps([number, reason])}\n".encode())
            await writer.drain()

        try:
            while line := await reader.readline():
                try:
                    remaining = decode_remaining(line)
                    if remaining is not None:
                        self._note_remaining(*remaining)
                        continue
                    request = decode(line)
                except ProtocolError as error:
                    if error.number is None:
                        return
                    writer.write(f"{json.dumps([error.number, str(error)])}\n".encode())
                    continue
                task = asyncio.create_task(answer(*request))
                running.add(task)
                task.add_done_callback(running.discard)
        finally:
            for task in list(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _note_remaining(self, caller: Caller, kinds: frozenset[str]) -> None:
        """End the servers that no run needs any more, unless `workers.keep_alive` keeps them for the next one."""
        self._run_of(caller).remaining = kinds
        log.info("kinds of jobs that remain: %s", ", ".join(sorted(kinds)) or "none")
        if self._keep_alive:
            return
        try:
            needed = frozenset().union(*(run.servers_needed() for run in self._runs.values()))
        except PlanError as error:  # the jobs that need the experiment report it
            log.warning("%s", error)
            return
        for kind in get_args(Kind):
            if kind not in needed:
                self._fleets.end_unused(kind)

    def _run_of(self, caller: Caller) -> Run:
        """Return the run of a caller. The next one finds data, model and mistakes as they are by then."""
        if caller not in self._runs:
            self._runs[caller] = Run(caller)
        return self._runs[caller]

    async def _answer(self, caller: Caller, job: Job) -> str:
        """Do one job; return why it failed, empty where it did not. It never raises: a client would wait for ever."""
        try:
            return await self._done(caller, job)
        except Exception as error:
            log.exception("%s", ascii(job))
            return f"{type(error).__name__}: {error} (a bug in Emoprobe; see logs/pool.log)\n"

    async def _done(self, caller: Caller, job: Job) -> str:
        self._adopt(caller.owner)
        run = self._run_of(caller)
        if run.remaining is not None:
            run.remaining |= {job.kind}
        if job in run.refused:  # the workflow asks again for what cannot succeed
            return run.refused[job]
        self._running[job.kind] += 1
        try:
            await self._do(run, job)
        except (FleetDownError, OverBudgetError) as error:
            if isinstance(job, JudgeJob):  # answers go on, and judgements can be made later
                run.refused[job] = f"{error}\n"
                return run.refused[job]
            run.down.add(job.experiment)
            if run.down.issuperset(run.names):  # without a server each job would fail for the same reason
                self._owners.stop(caller.owner)
            return f"{error}\n"
        except Exception as error:
            return self._reason(run, job, error)
        finally:
            self._running[job.kind] -= 1
        return ""

    def _reason(self, run: Run, job: Job, error: Exception) -> str:
        """Return why a job failed, for the person who runs the workflow."""
        if isinstance(error, LaunchError | PlanError | PlacementError | ResolveError):
            return f"{error}\n"
        if isinstance(error, OSError):
            log.error("%s/%s: %s", job.experiment, job.label, error)
            # The same words for every pair, so that the list of failures has them once.
            root = run.experiment(job.experiment).layout.root
            reason = f"a file of {root} cannot be read or written: {error.strerror or error}"
            return f"{job.label}: {reason}\nWhat to do: {what_to_do(error)}\n"
        told = (
            GaveUpError, RefusedError, VariantError, DataError, DamagedError, SteeringJobError, PromptError,
            ModelError, OutcomesError, BlindError, ActivationError,
        )  # fmt: skip
        if isinstance(error, told):
            message = f"{job.label}: {error}\n"
            if isinstance(error, RefusedError | VariantError | PromptError | BlindError):
                run.refused[job] = message
            log.error("%s/%s", job.experiment, message.rstrip())
            return message
        log.error("%s", job, exc_info=error)
        return f"{job.label}: {type(error).__name__}: {error} (a bug in Emoprobe; see logs/pool.log)\n"

    async def _do(self, run: Run, job: Job) -> None:
        experiment = run.experiment(job.experiment)
        if isinstance(job, JudgeJob):
            settings = experiment.judge(job.judge)
            fleet = await self._judging(run, experiment, settings)
            with self._fleets.generating(fleet):
                await judge.judge(experiment, fleet, settings, job.variant, job.sample)
            return
        await experiment.decide()
        if isinstance(job, GenerateJob | OutcomesJob):
            fleet = self._fleets.of(experiment.config.generation.backend, experiment, run.logs)
            if fleet.is_local and not experiment.config.captures_inline:
                self._fleets.start_capture_early(experiment, run.logs)
            with self._fleets.generating(fleet):
                generate = api.generate if fleet.kind == "api" else jobs.generate
                make = generate if isinstance(job, GenerateJob) else outcomes.measure
                await make(experiment, fleet, job.variant, job.sample)
            return
        fleet = self._fleets.of("nnsight", experiment, run.logs)
        await self._fleets.before_capture(fleet)
        match job:
            case CaptureJob():
                await jobs.capture(experiment, fleet, job.variant, job.sample)
            case TokensJob():
                await jobs.capture_tokens(experiment, fleet, job.variant, job.sample)
            case SteerJob():
                await steering.steer(experiment, fleet, f"{job.condition}/{job.variant}", job.sample)
            case ScoreJob():
                await steering.score(experiment, fleet, f"{job.condition}/{job.variant}", job.sample)

    async def _judging(self, run: Run, experiment: ExperimentJobs, settings: JudgeGrader) -> Fleet:
        """Return the endpoints of a judge, or the servers of its model."""
        if settings.endpoints:
            return self._fleets.of_judge(experiment, settings)
        served = experiment.judge_model(settings)
        await served.decide()
        return self._fleets.of("vllm", served, run.logs)

    def status(self) -> PoolStatus:
        """Return the status for `make watch`."""
        return PoolStatus(
            pid=os.getpid(),
            owners=self._owners.numbers(),
            running={kind: count for kind, count in self._running.items() if count},
            fleets=[fleet.status() for fleet in self._fleets],
        )
