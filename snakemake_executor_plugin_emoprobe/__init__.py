"""Snakemake's executor for plans of many short jobs: requests are sent from Snakemake's own process.

Requests for model output go to the pool; samples are drawn by one child process.
A shell, a process and a thread for each of thousands of trajectories cost more than all else about them. The local
executor, which this one extends, runs all other jobs. Chosen with `executor: emoprobe` in a profile; Snakemake finds
the plugin by the name of this package. Other executors run the same jobs by their commands.

Together with `scheduler: emoprobe`, requests are handed over as soon as they are ready, and wait here: Snakemake looks
at all ready jobs whenever one has finished. At most as many are in flight as the servers take at once
(`workers.requests` each), or the resource `requests` allows.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from snakemake.exceptions import WorkflowError
from snakemake.executors import local
from snakemake.settings.enums import Quietness
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase

from snakemake_executor_plugin_emoprobe.command_line import OptionError, check_config_options

if TYPE_CHECKING:
    from snakemake_executor_plugin_emoprobe.desk import Desk

common_settings = local.common_settings

REQUEST, REQUESTS = "request", "requests"


@dataclass
class ExecutorSettings(ExecutorSettingsBase):
    """No settings; made before Snakemake reads the config, which is checked here for what Snakemake cannot name."""

    def __post_init__(self) -> None:
        """End Snakemake with one line where an option cannot be read."""
        try:
            check_config_options(sys.argv[1:])
        except OptionError as error:
            sys.exit(str(error))  # Snakemake would add a traceback to an error of its own


class Executor(local.Executor):
    """The local executor, except for jobs that are requests."""

    def __post_init__(self) -> None:
        """No request has been made yet."""
        super().__post_init__()
        self._desk: Desk | None = None
        self._unfinished_elsewhere = self._counted = 0
        self._lock = threading.Lock()
        self._handler: Any = None

    def run_jobs(self, jobs: list[Any]) -> None:
        """Take jobs that are ready; returns at once."""
        self._stop_gracefully_in_a_thread()
        requests = [job for job in jobs if self.is_request(job)]
        if requests:
            if self._desk is None:
                from snakemake_executor_plugin_emoprobe.desk import Desk  # needs the library, see `is_request`

                limit = self.workflow.global_resources.get(REQUESTS)
                self._desk = Desk(self, getattr(limit, "value", limit) or self.workflow.resource_settings.cores or 1)
            if len(self.workflow.dag) != self._counted:  # checkpoints of a workflow around this one add jobs
                self._counted = len(self.workflow.dag)
                self._desk.expect(self._planned())
            self._desk.take(requests)
        super().run_jobs([job for job in jobs if not self.is_request(job)])

    def _planned(self) -> Counter[str]:
        """Count the jobs of the plan by kind, as their rules name it: requests themselves are expensive to make."""
        jobs = self.workflow.dag.needrun_jobs(exclude_finished=False)
        return Counter(kind for job in jobs if (kind := kind_of(job)) is not None)

    def is_request(self, job: Any) -> bool:
        """Return whether a job is nothing but a request that this process can send.

        In environments that Snakemake makes, another interpreter starts the pool.
        """
        if job.is_group() or self.workflow.deployment_settings.deployment_method:
            return False
        from emoprobe.workflow.drawing import SampleRequest  # the Snakefile has made it importable by now
        from server.pool.protocol import JobRequest

        return isinstance(job.params.get(REQUEST), JobRequest | SampleRequest)

    def run_job(self, job: Any) -> None:
        """Run a job of its own shell or process."""
        with self._lock:
            self._unfinished_elsewhere += 1
        super().run_job(job)

    def report_job_success(self, job_info: SubmittedJobInfo) -> None:
        """Tell the scheduler that a job has succeeded."""
        super().report_job_success(job_info)
        self._ended(job_info)

    def report_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **kwargs: Any) -> None:
        """Tell the scheduler that a job has failed; without --keep-going no other request is sent then."""
        again = job_info.job.restart_times > job_info.job.attempt - 1
        super().report_job_error(job_info, msg, **kwargs)
        if self._desk is not None and not again and not self.workflow.execution_settings.keep_going:
            self._desk.send_no_more()
        self._ended(job_info)

    def _ended(self, job_info: SubmittedJobInfo) -> None:
        if not self.is_request(job_info.job):
            with self._lock:
                self._unfinished_elsewhere -= 1
            self.end_if_stopped()

    def end_if_stopped(self) -> None:
        """End a run that sends no more requests once every job that was begun has been reported."""
        unsent = 0 if self._desk is None else self._desk.unsent_for_good()
        with self._lock:
            over = unsent and not self._unfinished_elsewhere
        if over:
            reason = f"The run ends early: {unsent} jobs were not begun. Run again to go on where it was."
            self.workflow.scheduler.executor_error_callback(WorkflowError(reason))

    def is_shown(self) -> bool:
        """Return whether anybody sees a message about a single job."""
        if Quietness.RULES not in (self.workflow.output_settings.quiet or ()):
            return True
        handlers = self.workflow.logger_manager.plugin_handlers
        return any(type(handler).__module__ != "snakemake_logger_plugin_emoprobe" for handler in handlers)

    def _stop_gracefully_in_a_thread(self) -> None:
        """Let Snakemake's handler of SIGTERM run beside the code that it interrupts, while this executor works.

        The handler of Snakemake 9.27 takes the scheduler's lock, which the interrupted code may hold for ever then.
        """
        if self._handler is not None:
            return
        self._handler = previous = signal.getsignal(signal.SIGTERM)

        def stop(*arguments: Any) -> None:
            if callable(previous):
                previous(*arguments)
            if self._desk is not None:
                self._desk.send_no_more()
                self.end_if_stopped()

        with suppress(ValueError):  # Snakemake is not in the main thread, and has no handler
            signal.signal(signal.SIGTERM, lambda *arguments: threading.Thread(target=stop, args=arguments).start())

    def shutdown(self) -> None:
        """End the connection to the pool, then the threads of the other jobs."""
        self._close()
        super().shutdown()

    def cancel(self) -> None:
        """Give up all requests, then wait for the other jobs."""
        self._close()
        super().cancel()

    def _close(self) -> None:
        if self._desk is not None:
            self._desk.close()
        if self._handler is not None:
            with suppress(ValueError):
                signal.signal(signal.SIGTERM, self._handler)
            self._handler = None


def kind_of(job: Any) -> str | None:
    """Return the kind of request that the jobs of a rule are; None for jobs that are none, or not of the pool."""
    kind: str | None = getattr(job.rule.params.get(REQUEST), "kind", None)
    return kind
