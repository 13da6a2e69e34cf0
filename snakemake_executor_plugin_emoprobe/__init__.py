"""Snakemake's executor for plans of many short jobs: those that ask the pool are handed to it in Snakemake's process.

A shell, a process and a thread for each of thousands of trajectories cost more than all else about them. All other jobs
are left to the local executor, which this one extends. Chosen with `executor: emoprobe` in a profile; Snakemake finds
the plugin by the name of this package. Other executors run the same jobs by the client in bash (`scripts/ask_pool.sh`).
"""

from __future__ import annotations

import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from snakemake.executors import local
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.settings import ExecutorSettingsBase

from snakemake_executor_plugin_emoprobe.command_line import OptionError, check_config_options

if TYPE_CHECKING:
    from emoprobe.results.layout import JobKind
    from server.pool.client import PoolClient

common_settings = local.common_settings

# The command of a job that does nothing but ask: four words, and a log for what went wrong.
ASKS = re.compile(r'source "\$EMOPROBE_CLIENT" (\S+) (\S+) (\S+) (\S+) 2> \S+')


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
    """The local executor, but for jobs that ask the pool."""

    def __post_init__(self) -> None:
        """Nothing has been asked yet."""
        super().__post_init__()
        self._client: PoolClient | None = None
        self._numbers = count()
        self._asked: dict[int, SubmittedJobInfo] = {}
        self._told: set[str] = set()

    def run_job(self, job: Any) -> None:
        """Hand a job to the pool, if that is all that it does; the local executor runs the others."""
        asks = None if job.is_group() or self._deploys() else ASKS.fullmatch(str(job.shellcmd).strip())
        if asks is None:
            super().run_job(job)
            return
        # The package of the pool lies beside the Snakefile, which has been read by now.
        from server.pool.protocol import Job

        self.workflow.async_run(job.prepare())
        number, info = next(self._numbers), SubmittedJobInfo(job=job)
        self._asked[number] = info
        self.report_job_submission(info)
        self._pool().ask(number, Job(cast("JobKind", asks[1]), *asks.groups()[1:]))

    def _deploys(self) -> bool:
        """Whether jobs run in environments that Snakemake makes, where another interpreter starts the pool."""
        return bool(self.workflow.deployment_settings.deployment_method)

    def _pool(self) -> PoolClient:
        if self._client is None:
            from server.pool.client import client_of_environment

            self._client = client_of_environment(self._answered)
        return self._client

    def _answered(self, number: int, reason: str) -> None:
        """Tell the scheduler what came of a job. In the client's thread: an exception ends the run, not the thread."""
        try:
            info = self._asked.pop(number)
            if not reason:
                self.report_job_success(info)
                return
            # What Snakemake itself says of a failed job `quiet: rules` hides. Thousands may fail for one reason.
            if reason not in self._told:
                self._told.add(reason)
                self.logger.error(f"{info.job.rule.name} failed: {reason.strip()}")
            with suppress(OSError):  # a full disk takes no text
                Path(info.job.log[0]).write_text(reason, encoding="utf-8", errors="backslashreplace")
            self.report_job_error(info)
        except Exception as error:
            self.workflow.scheduler.executor_error_callback(error)

    def shutdown(self) -> None:
        """End the client, then the threads of the other jobs."""
        self._hang_up()
        super().shutdown()

    def cancel(self) -> None:
        """Give up what was asked, then wait for the other jobs."""
        self._hang_up()
        super().cancel()

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
