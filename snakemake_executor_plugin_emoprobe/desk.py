"""Requests of one run: those that wait, those in flight, and what is to be reported."""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from emoprobe.workflow.drawing import SampleProcess, SampleRequest
from server.pool.client import PoolClient
from server.pool.protocol import Access, JobRequest
from snakemake_executor_plugin_emoprobe import REQUEST, Executor, kind_of


class Desk:
    """Sends requests in order of model, priority, experiment and place in the plan, so many at a time.

    Models are served one after the other, so a request for another one would hold a place and wait. A job that waits is
    untouched: its old files are removed when its request is sent. All work is done in batches, in a thread of its own.

    Args:
        executor: prepares jobs and reports them.
        limit: requests in flight at most, or as many as the servers take at once (`Access.requests`) if these are more.
    """

    def __init__(self, executor: Executor, limit: int) -> None:
        self._executor, self._limit = executor, limit
        self._changed = threading.Condition()
        self._numbers = count()
        self._waiting: list[tuple[tuple[int, int, int, int], Any]] = []
        self._flying: dict[int, SubmittedJobInfo] = {}
        self._answers: list[tuple[int, str]] = []
        self._unreported = 0
        self._stopped = self._closed = False
        self._clients: dict[Access | tuple[str, ...], PoolClient | SampleProcess] = {}
        self._reasons: set[str] = set()
        self._expected, self._done = Counter[str](), Counter[str]()
        self._remaining: frozenset[str] | None = None
        threading.Thread(target=self._work, name="requests", daemon=True).start()

    def expect(self, kinds: Counter[str]) -> None:
        """Set how many jobs of each kind the plan holds, finished ones included."""
        with self._changed:
            self._expected = kinds

    def take(self, jobs: Sequence[Any]) -> None:
        """Queue jobs."""
        entries = [(self._rank(job), job) for job in jobs]
        requests = [job.params[REQUEST] for job in jobs]
        taken = [request.access.requests for request in requests if isinstance(request, JobRequest)]
        with self._changed:
            self._limit = max(self._limit, *taken, 0)
            for entry in entries:
                heapq.heappush(self._waiting, entry)
            self._changed.notify()

    def send_no_more(self) -> None:
        """Leave every job that waits as it is; those in flight come to their end."""
        with self._changed:
            self._stopped = True

    def unsent_for_good(self) -> int:
        """Return how many jobs will not be begun, once all others are reported; else 0."""
        with self._changed:
            return len(self._waiting) if self._stopped and not self._unreported else 0

    def close(self) -> None:
        """Give up every request."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            clients = list(self._clients.values())
            self._changed.notify()
        for client in clients:
            client.close()

    def _rank(self, job: Any) -> tuple[int, int, int, int]:
        turn, place = job.params[REQUEST].order
        return (turn, -job.priority, place, job.jobid)

    def _work(self) -> None:
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed or self._answers or self._room())
                    if self._closed:
                        return
                    answers, self._answers = self._answers, []
                    ended = [(self._flying.pop(number), reason) for number, reason in answers]
                    sent = [heapq.heappop(self._waiting)[1] for _ in range(self._room())]
                    self._unreported += len(sent)
                if sent:
                    self._send(sent)
                for info, reason in ended:
                    self._report(info, reason)
                self._tell_remaining()
        except BaseException as error:  # no thread dies in silence: the run would wait for ever
            self._executor.workflow.scheduler.executor_error_callback(error)

    def _room(self) -> int:
        """Return how many more requests may be sent now. Holds the lock."""
        return 0 if self._stopped else max(min(len(self._waiting), self._limit - len(self._flying)), 0)

    def _send(self, jobs: list[Any]) -> None:
        """Prepare jobs and send their requests."""
        failed: dict[Any, Exception] = {}
        self._executor.workflow.async_run(_prepare(jobs, failed))
        requests: dict[Access | tuple[str, ...], list[tuple[int, Any]]] = {}
        for job in jobs:
            info = SubmittedJobInfo(job=job)
            if job in failed:
                self._report(info, f"{failed[job]}\n")
                continue
            if self._executor.is_shown():
                self._executor.run_job_pre(job)
            self._executor.report_job_submission(info)
            request: JobRequest | SampleRequest = job.params[REQUEST]
            number = next(self._numbers)
            with self._changed:
                self._flying[number] = info
            if isinstance(request, JobRequest):
                requests.setdefault(request.access, []).append((number, request.job))
            else:
                requests.setdefault(request.script, []).append((number, request))
        for receiver, numbered in requests.items():
            client: Any = self._client(receiver)
            client.ask(numbered)

    def _client(self, receiver: Access | tuple[str, ...]) -> PoolClient | SampleProcess:
        """The client of a pool, or of the process of a script that draws samples."""
        with self._changed:
            if receiver not in self._clients:
                self._clients[receiver] = (
                    PoolClient(receiver, self._answered)
                    if isinstance(receiver, Access)
                    else SampleProcess(receiver, self._answered)
                )
            return self._clients[receiver]

    def _answered(self, number: int, reason: str) -> None:
        """Note what came of a request; runs in a thread of a client."""
        with self._changed:
            self._answers.append((number, reason))
            self._changed.notify()

    def _tell_remaining(self) -> None:
        """Tell the pools which kinds of jobs are left whenever that changes, so that servers without work end."""
        with self._changed:
            remaining = frozenset(kind for kind, count in self._expected.items() if self._done[kind] < count)
            if not self._expected or remaining == self._remaining:
                return
            self._remaining = remaining
            clients = [client for client in self._clients.values() if isinstance(client, PoolClient)]
        for client in clients:
            client.tell_remaining(remaining)

    def _report(self, info: SubmittedJobInfo, reason: str) -> None:
        """Tell the scheduler what came of a job."""
        again = bool(reason) and info.job.restart_times > info.job.attempt - 1
        if reason:
            # `quiet: rules` hides what Snakemake itself says of a failed job. Thousands may fail for one reason.
            if reason not in self._reasons:
                self._reasons.add(reason)
                self._executor.logger.error(f"{info.job.rule.name} failed: {reason.strip()}")
            with suppress(OSError):  # a full disk takes no text
                Path(info.job.log[0]).write_text(reason, encoding="utf-8", errors="backslashreplace")
            self._executor.report_job_error(info)
        else:
            self._executor.report_job_success(info)
        with self._changed:
            self._unreported -= 1
            self._done[kind_of(info.job) or ""] += not again
        self._executor.end_if_stopped()


async def _prepare(jobs: list[Any], failed: dict[Any, Exception]) -> None:
    for job in jobs:
        try:
            await job.prepare()
        except Exception as error:
            failed[job] = error
