"""Show what the reports in this folder are about, on the installed Snakemake: show.py looks|sigterm|records|shell|plan.

Each runs a workflow of one rule in a temporary folder and prints one line.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

JOBS = 400
SNAKEFILE = f"""
rule all:
    input: [f"{{number}}.txt" for number in range({JOBS})]

rule make:
    output: "{{number}}.txt", "{{number}}.log"
    params: "a parameter"
    shell: "touch {{output}}"
"""


def looks() -> None:
    """How often the scheduler looks for jobs to start, and how many threads wait to cause another look."""
    from snakemake.scheduling.job_scheduler import JobScheduler

    counts = _counted(JobScheduler, "job_selector", "_schedule_reevalutation", "update_input_sizes")
    started, most = time.monotonic(), 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.05):
            most = max(most, sum(isinstance(thread, threading.Timer) for thread in threading.enumerate()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _snakemake(command="sleep 1; touch")
    ended.set()
    watcher.join()
    seconds = time.monotonic() - started
    print(f"{JOBS} jobs of a second, 50 at a time, {seconds:.1f} s: {json.dumps(counts)}; timers: {most}")


def sigterm() -> None:
    """A signal that arrives while the scheduler holds its lock."""
    from snakemake.scheduling.job_scheduler import JobScheduler

    original = JobScheduler._error_jobs

    def interrupted(self: Any) -> None:
        if self.finished_jobs > JOBS // 2 and not self._user_kill:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self)

    JobScheduler._error_jobs = interrupted
    faulthandler.dump_traceback_later(20, exit=True)
    _snakemake()
    print("Snakemake ended; without the patch it waits for itself, and this script shows where after 20 s")


def records() -> None:
    """How often the input of a job is read to record its outputs, and what is imported for its parameters."""
    from snakemake.io import _IOFile

    counts = _counted(_IOFile, "checksum")
    _snakemake('    input: "in.txt"')
    print(f"{JOBS} jobs with 2 outputs and 1 input: {json.dumps(counts)}; pandas imported: {'pandas' in sys.modules}")


def shell() -> None:
    """How often a job's shell command is formatted."""
    from snakemake.jobs import Job

    counts = _counted(Job, "format_wildcards")
    _snakemake()
    print(f"{JOBS} jobs: {json.dumps(counts)}")


def plan() -> None:
    """What a plan asks again for every job and file: the parameters of functions, and every rule's suffix."""
    from snakemake import common, output_index

    counts = _counted(common.inspect, "signature")
    compared = 0
    original = output_index.PrefixLookup.match_iter

    def match_iter(self: Any, query: str) -> Any:
        nonlocal compared
        for entry in original(self, query):
            compared += 1
            yield entry

    output_index.PrefixLookup.match_iter = match_iter
    others = [
        f'rule other{number}:\n    output: "{{name}}.other{number}"\n    shell: "touch"\n' for number in range(100)
    ]
    _snakemake("    resources: cpus=lambda wildcards: 1", after="\n".join(others))
    print(f"{JOBS} jobs, 101 rules: {json.dumps(counts)}; entries compared with a file: {compared:,}")


def _counted(owner: Any, *names: str) -> dict[str, int]:
    counts = dict.fromkeys(names, 0)

    def wrap(name: str) -> None:
        original = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return original(*arguments, **named)

        setattr(owner, name, call)

    for name in names:
        wrap(name)
    return counts


def _snakemake(more: str = "", command: str = "touch", after: str = "") -> None:
    from snakemake.cli import main

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "Snakefile").write_text(
            SNAKEFILE.replace("    params:", f"{more}\n    params:").replace("touch", command) + after
        )
        Path(folder, "in.txt").write_text("some input")
        os.chdir(folder)
        arguments = ["--cores", "50", "--quiet", "all", "--max-jobs-per-timespan", "1000/1s"]
        try:
            main(arguments)
        except SystemExit:
            pass
        os.chdir("/")


if __name__ == "__main__":
    chosen = {"looks": looks, "sigterm": sigterm, "records": records, "shell": shell, "plan": plan}
    if sys.argv[1:] and sys.argv[1] in chosen:
        chosen[sys.argv[1]]()
    else:
        for name in chosen:
            subprocess.run([sys.executable, __file__, name], check=False)
