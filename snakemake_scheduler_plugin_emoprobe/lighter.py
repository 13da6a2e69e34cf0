"""What Snakemake 9.27 does more often than it needs to, done once: a plan here has thousands of jobs of milliseconds.

Nothing that Snakemake decides or writes becomes another: `docs/upstream` has reports with patches of most, and the
tests compare the records. Another version than the one that this was written against runs as it is.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from inspect import Parameter, isfunction, ismethod
from typing import Any

import snakemake
import snakemake.common
import snakemake.rules
from snakemake.common.prefix_lookup import PrefixLookup
from snakemake.jobs import Job
from snakemake.output_index import OutputIndex
from snakemake.persistence import RECORD_FORMAT_VERSION, MetadataRecord, PersistenceBase
from snakemake.persistence.file import FilePersistence
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake.settings.enums import Quietness
from snakemake_interface_executor_plugins.settings import ExecMode

VERSION = "9.27."
MODE = 0o660


class Notices:
    """A semaphore of which all counts are taken at once.

    Whoever waits for the scheduler's semaphore looks at everything that has happened since: another look for every
    other count finds nothing, and costs a step for each of the ready jobs.
    """

    def __init__(self) -> None:
        self._event = threading.Event()

    def acquire(self) -> bool:
        """Wait for a release after the last time that this returned."""
        self._event.wait()
        self._event.clear()
        return True

    def release(self) -> None:
        """Let one that waits go on, now or when it next asks."""
        self._event.set()


def lighten() -> None:
    """Change Snakemake in this process, once."""
    if not snakemake.__version__.startswith(VERSION) or hasattr(JobScheduler, "is_lighter"):
        return
    JobScheduler.is_lighter = True
    JobScheduler.__init__ = _with_notices(JobScheduler.__init__)
    JobScheduler._schedule_reevalutation = _schedule_once
    JobScheduler.update_input_sizes = _of_new_jobs(JobScheduler.update_input_sizes)
    JobScheduler.remaining_jobs = property(_remaining_jobs)
    OutputIndex.__init__ = _by_length(OutputIndex.__init__)
    OutputIndex.match = _match
    of_functions = _read_once(snakemake.common.get_function_params)
    snakemake.common.get_function_params = snakemake.rules.get_function_params = of_functions
    Job.log_info = _where_somebody_sees(Job.log_info)
    Job.shellcmd = property(_kept(Job.shellcmd.fget))
    PersistenceBase._serialize_param = property(_serializer(PersistenceBase._serialize_param.fget))
    FilePersistence._io_write = _io_write
    FilePersistence.finished = _finished(FilePersistence.finished)


def _with_notices(original: Callable[..., None]) -> Callable[..., None]:
    def __init__(self: Any, *arguments: Any, **named: Any) -> None:  # noqa: N807
        original(self, *arguments, **named)
        self._open_jobs = Notices()
        self._open_jobs.release()
        self._timer = None

    return __init__


def _schedule_once(self: Any, delay: float) -> None:
    """Look again after a while; a look that is due serves all who want one, as every look asks for the next.

    Snakemake starts a thread for each, and each brings one more: their number grows with every job that ends.
    """
    if self._timer is None or not self._timer.is_alive():
        self._timer = threading.Timer(delay, lambda: self._open_jobs.release())
        self._timer.daemon = True  # a run that has ended does not wait for it
        self._timer.start()


def _of_new_jobs(original: Callable[..., Any]) -> Callable[..., Any]:
    async def update_input_sizes(self: Any, jobs: Iterable[Any]) -> None:
        """The inputs of a job that is ready are finished, so their sizes are asked for once."""
        sized = self.__dict__.setdefault("_sized_jobs", set())
        new = [job for job in jobs if job not in sized]
        sized.update(new)
        # The original forgets the sizes of other jobs where there are many.
        known = dict(self._input_sizes)
        await original(self, new)
        self._input_sizes = known | self._input_sizes

    return update_input_sizes


def _remaining_jobs(self: Any) -> list[Any]:
    dag = self.workflow.dag
    return list(dag._needrun - dag._finished - self.running - self.failed)


def _by_length(original: Callable[..., None]) -> Callable[..., None]:
    def __init__(self: Any, rules: Iterable[Any]) -> None:  # noqa: N807
        """Keep the rules of a prefix by their suffix, so that those of a file are looked up, not sought among all."""
        original(self, rules)
        prefixes: dict[str, dict[int, dict[str, set[Any]]]] = {}
        for prefix, entries in self._lookup._entries:
            suffixes = prefixes.setdefault(prefix, {})
            for rule, suffix in entries:
                suffixes.setdefault(len(suffix), {}).setdefault(suffix, set()).add(rule)
        self._lookup = PrefixLookup(list(prefixes.items()))

    return __init__


def _match(self: Any, targetfile: str) -> set[Any]:
    """The rules with an output that begins and ends as a file does."""
    return {
        rule
        for _, suffixes in self._lookup.match_iter(targetfile)
        for length, rules in suffixes.items()
        for rule in rules.get(targetfile[len(targetfile) - length :], ())
    }


def _read_once(original: Callable[[Any], Mapping[str, Parameter]]) -> Callable[[Any], Mapping[str, Parameter]]:
    @cache
    def read(function: Any, is_bound: bool) -> Mapping[str, Parameter]:
        parameters = list(original(function).items())
        return dict(parameters[1:] if is_bound else parameters)

    def get_function_params(func: Any) -> Mapping[str, Parameter]:
        """A function or method has the same parameters for every job, unless it is said to have others."""
        if hasattr(func, snakemake.common.FUNC_OVERWRITE_PARAMS_ATTR):
            return original(func)
        if isfunction(func):
            return read(func, False)
        if ismethod(func) and isfunction(func.__func__):
            return read(func.__func__, True)
        return original(func)

    return get_function_params


def _where_somebody_sees(original: Callable[..., None]) -> Callable[..., None]:
    def log_info(self: Any, *arguments: Any, **named: Any) -> None:
        """What a run or a plan that is quiet about rules would throw away is not put together."""
        workflow = self.dag.workflow
        settings = workflow.output_settings
        thrown_away = Quietness.RULES in (settings.quiet or ()) and not settings.verbose and not settings.printshellcmds
        if not thrown_away or workflow.logger_manager.plugin_handlers or self.rule.is_checkpoint:
            original(self, *arguments, **named)

    return log_info


def _kept(original: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    def shellcmd(self: Any) -> str | None:
        """Formatted once for each time that parameters and resources are evaluated; four places ask for it."""
        made_of = (self.params, self.resources)
        kept = self.__dict__.get("_kept_shellcmd")
        if kept is None or kept[0][0] is not made_of[0] or kept[0][1] is not made_of[1]:
            kept = self._kept_shellcmd = (made_of, original(self))
        found: str | None = kept[1]
        return found

    return shellcmd


def _serializer(original: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def serialize_param(self: Any) -> Any:
        """Where nobody has imported pandas, no parameter is a table, and pandas takes half a second to import."""
        return original(self) if "pandas" in sys.modules else self._serialize_param_builtin

    return serialize_param


def _io_write(self: Any, subject: str, json_value: Any, id: str, mode: int = MODE) -> None:
    path = self._record_path(subject, id)
    content = json.dumps(json_value).encode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb", buffering=0) as file:
        # The user's mask may have taken the group's permissions.
        if os.fstat(descriptor).st_mode & mode != mode:
            os.fchmod(descriptor, (os.fstat(descriptor).st_mode | mode) & 0o7777)
        file.write(content)


def _finished(original: Callable[..., Any]) -> Callable[..., Any]:
    async def finished(self: Any, job: Any) -> None:
        """The same records; what is true of the job is found once, not for each of its outputs."""
        settings = self.dag.workflow.execution_settings
        if not settings.keep_metadata or self.dag.workflow.exec_mode != ExecMode.DEFAULT:
            await original(self, job)
            return
        if not job.output:
            return
        self._clear_cache()
        now = time.time()
        checksums = {str(path): await path.checksum(self.max_checksum_file_size) for path in job.input}
        record = MetadataRecord(
            rule=job.rule.name,
            input=self._input(job),
            log=self._log(job),
            shellcmd=job.shellcmd,
            params=self._params(job),
            code=self._code(job.rule),
            record_format_version=RECORD_FORMAT_VERSION,
            conda_env=self._conda_env(job),
            container_img_url=job.container_img_url,
            software_stack_hash=self._software_stack_hash(job),
            job_hash=hash(job),
            incomplete=False,
            input_checksums={path: checksum for path, checksum in checksums.items() if checksum is not None},
        ).model_dump()
        keys = [(file, self._get_key(file)) for file in job.output]
        for file, key in keys:
            ended = (await file.mtime()).local_or_storage() if await file.exists() else now
            # What an earlier run recorded, and this one says nothing about, stays.
            old = self._io_read(self._metadata_path, key)
            times = {"starttime": self._get_recorded_starttime(key) or now, "endtime": ended}
            external = {"external_jobid": old["external_jobid"]} if old.get("external_jobid") else {}
            self._io_write(self._metadata_path, record | times | external, key)
        for _, key in keys:
            self._unmark_incomplete(key)

    return finished
