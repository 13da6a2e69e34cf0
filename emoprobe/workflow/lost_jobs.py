"""A watchdog for rules that run as SLURM jobs of their own: it ends a run that waits for a job that is no more.

Snakemake's executor for SLURM asks for the states of its jobs, and may miss an answer: after an outage of the
accounting it stops asking, and it follows a job for ever that was preempted and not queued again. Such a run would
hang.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

log = logging.getLogger("snakemake")

INTERVAL_SECONDS = 60.0
# Longer than the executor takes between two looks at its jobs, which grows to 180 s.
PATIENCE_SECONDS = 600.0
COMMAND_SECONDS = 60.0
EXECUTOR = "snakemake_executor_plugin_slurm"
_STANDING = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "REQUEUED", "RESIZING"}


class LostJobs:
    """Jobs that Snakemake waits for, and since when SLURM has said of them that they are over.

    Args:
        waiting: the rules' jobs that Snakemake waits for, by the number that SLURM gave them.
        over: why a job is over; empty while it stands, or where SLURM does not answer.
        patience: seconds that Snakemake may take to notice that a job is over.
    """

    def __init__(self, waiting: Callable[[], Mapping[str, str]], over: Callable[[str], str], patience: float) -> None:
        self._waiting, self._over, self._patience = waiting, over, patience
        self._since: dict[str, float] = {}

    def look(self, now: float) -> str:
        """Look once, at a time in seconds; a sentence about the first job that is lost, empty where none is."""
        waiting = dict(self._waiting())
        reasons = {number: self._over(number) for number in waiting}
        self._since = {number: self._since.get(number, now) for number, reason in reasons.items() if reason}
        for number, since in self._since.items():
            if now - since >= self._patience:
                return (
                    f"Snakemake waits for SLURM job {number} ({waiting[number]}), but {reasons[number]} for "
                    f"{now - since:.0f} s. The run ends; run again to go on where it was."
                )
        return ""


def why_over(number: str) -> str:
    """Return why SLURM job `number` is over: forgotten, or in a final state; empty while it runs or is unknown."""
    try:
        done = subprocess.run(
            ["scontrol", "--oneliner", "show", "job", number], capture_output=True, text=True, timeout=COMMAND_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    if done.returncode != 0:
        return "SLURM has not known it" if "Invalid job id" in done.stderr else ""
    state = re.search(r"\bJobState=(\w+)", done.stdout)
    return f"SLURM has called it {state[1]}" if state is not None and state[1] not in _STANDING else ""


def watch_jobs(workflow: Any, interval: float | None = None, patience: float | None = None) -> None:
    """Watch the jobs of a Snakemake workflow in a thread, where its executor is that for SLURM; else do nothing."""
    interval = INTERVAL_SECONDS if interval is None else interval
    patience = PATIENCE_SECONDS if patience is None else patience
    scheduler = workflow.scheduler
    if not type(scheduler._executor).__module__.startswith(EXECUTOR):
        return

    def waiting() -> dict[str, str]:
        """The jobs that run, by the number that Snakemake has recorded for each as it was submitted."""
        running = list(scheduler.running)
        jobs = [part for job in running for part in (job if job.is_group() else [job])]
        return {number: str(job) for job in jobs for number in workflow.persistence.external_jobids(job)}

    jobs = LostJobs(waiting, why_over, patience)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So it is where a shell script started the run in the background, and then nothing could end it.
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def follow() -> None:
        while True:
            time.sleep(interval)
            try:
                sentence = jobs.look(time.monotonic())
            except Exception as error:  # nobody else would notice a lost job
                log.warning(f"The SLURM jobs cannot be checked ({type(error).__name__}: {error}); another try follows.")
                continue
            if sentence:
                log.error(sentence)
                # After SIGTERM Snakemake would wait for the jobs that run, this one among them.
                os.kill(os.getpid(), signal.SIGINT)
                return

    threading.Thread(target=follow, name="lost-jobs", daemon=True).start()
