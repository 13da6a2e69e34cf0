"""The watchdog of rules that run as SLURM jobs of their own."""

from __future__ import annotations

import os
import signal
import threading
from types import SimpleNamespace

import pytest

from emoprobe.workflow import lost_jobs
from emoprobe.workflow.lost_jobs import LostJobs, watch_jobs, why_over
from tests.conftest import PATIENCE
from tests.slurm import Slurm


def test_a_job_that_stays_over_is_lost() -> None:
    over = {"7": "", "8": "SLURM has not known it"}
    jobs = LostJobs(lambda: {"7": "probe", "8": "analyze"}, over.__getitem__, patience=100.0)
    assert jobs.look(0.0) == jobs.look(99.0) == ""
    assert "SLURM job 8 (analyze), but SLURM has not known it for 100 s" in jobs.look(100.0)


def test_a_job_that_snakemake_finishes_in_time_is_not_lost() -> None:
    waiting = {"8": "analyze"}
    jobs = LostJobs(lambda: waiting, lambda number: "SLURM has called it COMPLETED", patience=100.0)
    assert jobs.look(0.0) == ""
    waiting.clear()
    assert jobs.look(100.0) == ""
    waiting["8"] = "analyze"
    assert jobs.look(101.0) == ""


def test_an_answer_that_is_missing_starts_anew() -> None:
    answers = iter(["SLURM has not known it", "", "SLURM has not known it"])
    jobs = LostJobs(lambda: {"8": "analyze"}, lambda number: next(answers), patience=100.0)
    assert [jobs.look(now) for now in (0.0, 50.0, 120.0)] == ["", "", ""]


def test_slurm_says_what_is_over(slurm: Slurm) -> None:
    script = ["--output=/dev/null", "--parsable"]
    ended = slurm.run("sbatch", *script, "--wrap=exit 3").strip()
    stands = slurm.run("sbatch", *script, "--wrap=sleep 1000").strip()
    slurm.wait_until(lambda: int(ended) not in slurm.jobs(), "the end of a job")
    assert why_over(ended) == "SLURM has called it FAILED"
    assert why_over(stands) == ""
    assert why_over("999999") == "SLURM has not known it"
    slurm.make_idle()


def test_where_slurm_does_not_answer_nothing_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert why_over("1") == ""


class Job:
    """A job of Snakemake, as far as the watchdog looks."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name

    def is_group(self) -> bool:
        return False


def workflow(executor: object, running: set[Job], numbers: dict[Job, str]) -> SimpleNamespace:
    persistence = SimpleNamespace(external_jobids=lambda job: [numbers[job]] if job in numbers else [])
    return SimpleNamespace(scheduler=SimpleNamespace(_executor=executor, running=running), persistence=persistence)


def test_other_executors_are_left_alone() -> None:
    threads = threading.active_count()
    watch_jobs(workflow(SimpleNamespace(), set(), {}))
    assert threading.active_count() == threads


def test_a_run_that_waits_for_a_lost_job_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    class Executor:
        __module__ = lost_jobs.EXECUTOR

    sent: list[int] = []
    interrupted = threading.Event()

    def kill(process: int, number: int) -> None:
        sent.append(number)
        interrupted.set()

    monkeypatch.setattr(lost_jobs, "why_over", lambda number: f"SLURM has not known {number}")
    monkeypatch.setattr(os, "kill", kill)
    waited_for, done = Job("the job"), Job("a job that is done")
    running, numbers = {waited_for}, {done: "4"}
    executor = Executor()
    watch_jobs(workflow(executor, running, numbers), interval=0.01, patience=0.0)
    assert vars(executor) == {}
    assert not interrupted.wait(0.3)  # not submitted yet
    numbers[waited_for] = "5"
    assert interrupted.wait(PATIENCE)
    assert sent == [signal.SIGINT]


def test_an_error_does_not_end_the_watch(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    class Executor:
        __module__ = lost_jobs.EXECUTOR

    waited_for = Job("the job")

    class Scheduler:
        _executor = Executor()
        looks = 0

        @property
        def running(self) -> set[Job]:
            self.looks += 1
            if self.looks == 1:
                raise RuntimeError("Set changed size during iteration")
            return {waited_for}

    interrupted = threading.Event()
    monkeypatch.setattr(lost_jobs, "why_over", lambda number: f"SLURM has not known {number}")
    monkeypatch.setattr(os, "kill", lambda process, number: interrupted.set())
    caplog.set_level("WARNING", logger="snakemake")
    persistence = SimpleNamespace(external_jobids=lambda job: ["5"])
    watch_jobs(SimpleNamespace(scheduler=Scheduler(), persistence=persistence), interval=0.01, patience=0.0)
    assert interrupted.wait(PATIENCE)
    assert "The SLURM jobs cannot be checked (RuntimeError: Set changed size" in caplog.text
