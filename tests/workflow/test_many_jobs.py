"""Snakemake with this project's plugins, at a pool that answers at once: no job is lost, made twice, or recorded otherwise."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import pytest

from server.pool.protocol import GenerateJob, Job
from tests.copies.copy import Order, launch
from tests.server.pool.instant_pool import InstantPool
from tests.workspace import ROOT, Process, wait_for

JOBS = 1500
SECONDS = 300.0
PLUGINS = ("--executor", "emoprobe", "--scheduler", "emoprobe", "--keep-going")
SNAKEFILE = """
import os
from pathlib import Path
from server.pool.protocol import Access, Caller, GenerateJob, JobRequest

ACCESS = Access(Path("pool/a.address"), Caller("plan", "results", os.getcwd(), os.getpid()), "{python}", Path("{root}"))
JOBS = [f"g_{{number:05d}}" for number in range(config["jobs"])]

rule all:
    input: expand("{{variant}}/{{sample}}/b.txt", variant=["calm"], sample=JOBS), "sum.txt"

rule first:
    output: "first.txt"
    log: "logs/first.log"
    shell: "echo 1 > {{output}}"

rule make:
    input: "first.txt"
    output: "{{variant}}/{{sample}}/a.txt", "{{variant}}/{{sample}}/b.txt"
    log: "logs/{{variant}}/{{sample}}.log"
    threads: 0
    resources: requests=1
    params:
        request=lambda wildcards, input: JobRequest(ACCESS, GenerateJob("one", wildcards.variant, wildcards.sample)),
        made_from=config.get("made_from", "x"), number=lambda wildcards: len(wildcards.sample)
    shell: "{{params.request}} 2> {{log}}"

rule sum:
    input: expand("calm/{{sample}}/a.txt", sample=JOBS)
    output: "sum.txt"
    shell: "ls calm | wc -l > {{output}}"
"""


class Many:
    """A folder with many jobs, and the pool that does them."""

    def __init__(
        self, folder: Path, jobs: int = JOBS, plugins: tuple[str, ...] = PLUGINS, *, copied: bool = True
    ) -> None:
        self.folder, self.jobs, self.plugins, self.copied = folder, jobs, plugins, copied
        self.failing: dict[str, int] = {}
        """Sample → how many times it fails."""
        self.done = 0
        self.order: list[str] = []
        self.drop_at: set[int] = set()
        (folder / "Snakefile").write_text(SNAKEFILE.format(python=sys.executable, root=ROOT))
        self.pool = InstantPool(folder / "pool/a.address", self._do)

    def _do(self, job: Job, times: int) -> str | None:
        assert isinstance(job, GenerateJob)
        self.done += 1
        self.order.append(job.sample)
        if self.done in self.drop_at:
            self.pool.drop()
        if times <= self.failing.get(job.sample, 0):
            return f"{job.label}: refused\n"
        folder = self.folder / job.variant / job.sample
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("a.txt", "b.txt"):
            (folder / name).write_text("made")
        return ""

    def start(self, *arguments: str, **config: Any) -> Process:
        config = {"jobs": self.jobs} | config
        options = [
            "--cores",
            "2",
            "--resources",
            "requests=64",
            *self.plugins,
            "--rerun-incomplete",
            "--quiet",
            "rules",
        ]
        options += ["--max-jobs-per-timespan", "1000000/1s", *arguments]
        options += ["--config", *(f"{key}={value}" for key, value in config.items())]
        order = Order("snakemake", options, str(self.folder), {**os.environ, "PYTHONPATH": str(ROOT)}, session=True)
        with open(self.folder / "snakemake.out", "w") as output:
            return launch(order, output, output, copied=self.copied)

    def end(self, process: Process) -> tuple[int, str]:
        """Wait for the end of Snakemake; return its status and what it printed."""
        status = process.wait(SECONDS)
        return status, (self.folder / "snakemake.out").read_text()

    def finish(self, *arguments: str, **config: Any) -> tuple[int, str]:
        return self.end(self.start(*arguments, **config))

    def made(self) -> int:
        return len(list(self.folder.glob("calm/*/b.txt")))

    def records(self) -> dict[str, dict[str, Any]]:
        """What Snakemake recorded of every job's outputs, without times."""
        found = {}
        for path in sorted(self.folder.glob("*/*/*.txt")):
            name = str(path.relative_to(self.folder))
            key = urlsafe_b64encode(name.encode()).decode()
            found[name] = json.loads((self.folder / ".snakemake/metadata" / key).read_text())
            assert found[name].pop("starttime") > 0
            assert found[name].pop("endtime") > 0
            del found[name]["job_hash"]  # differs from process to process
        return found


def test_no_job_is_lost_where_some_fail_and_the_pool_goes_away(tmp_path: Path) -> None:
    """Jobs of which some fail for good, some once, at a pool that drops its connection twice."""
    run = Many(tmp_path)
    once = {f"g_{number:05d}": 1 for number in range(3, JOBS, 50)}
    for_good = {f"g_{number:05d}": 10**6 for number in range(7, JOBS, 50)}
    run.failing = once | for_good
    run.drop_at = {JOBS // 3, JOBS // 2}
    status, output = run.finish("--retries", "1")
    assert status == 1, output[-3000:]
    assert run.made() == JOBS - len(for_good)
    assert not (tmp_path / "sum.txt").exists()
    for sample in for_good:
        assert (tmp_path / f"logs/calm/{sample}.log").read_text() == f"calm/{sample}: refused\n"
        assert f"make failed: calm/{sample}: refused" in output
    assert not list((tmp_path / ".snakemake/incomplete").glob("*"))
    run.failing = {}
    asked = run.pool.asked.total()
    status, output = run.finish()
    assert status == 0, output[-3000:]
    assert run.pool.asked.total() == asked + len(for_good)
    assert (tmp_path / "sum.txt").read_text().strip() == str(JOBS)
    assert "Nothing to be done" in run.finish("-n")[1]
    run.pool.stop()


def test_what_ended_before_a_signal_is_not_made_again(tmp_path: Path) -> None:
    """After SIGTERM Snakemake waits for what runs; each of two such stops loses nothing, and nothing is made twice."""
    jobs = 600
    run = Many(tmp_path, jobs)
    for part in (1, 2):
        process = run.start()
        wait_for(
            lambda part=part, process=process: run.made() > part * jobs // 4 or process.poll() is not None, SECONDS
        )
        process.send_signal(signal.SIGTERM)
        status, output = run.end(process)
        assert status == 1, output[-3000:]
        assert run.made() < jobs
    status, output = run.finish()
    assert status == 0, output[-3000:]
    assert run.made() == jobs
    assert set(run.pool.asked.values()) == {1}
    run.pool.stop()


def test_what_was_asked_when_snakemake_is_killed_is_made_again(tmp_path: Path) -> None:
    run = Many(tmp_path, 200)
    process = run.start()
    wait_for(lambda: run.made() > 20 or process.poll() is not None, SECONDS)
    process.kill()
    run.end(process)
    status, output = run.finish("--unlock")
    assert status == 0, output[-3000:]
    status, output = run.finish()
    assert status == 0, output[-3000:]
    assert run.made() == 200
    assert len(run.records()) == 400
    run.pool.stop()


def test_a_failure_without_keep_going_begins_no_other_job(tmp_path: Path) -> None:
    """What was in flight ends well, what waits is untouched, and nothing is made twice."""
    jobs = 1000
    run = Many(tmp_path, jobs, PLUGINS[:-1])
    run.failing = {"g_00100": 1}
    status, output = run.finish()
    assert status == 1
    assert "make failed: calm/g_00100: refused" in output
    made = run.made()
    assert made < jobs // 2
    assert not list((tmp_path / ".snakemake/incomplete").glob("*"))
    assert len(run.records()) == 2 * made
    assert run.finish()[0] == 0
    assert run.made() == jobs
    assert sum(run.pool.asked.values()) == jobs + 1
    run.pool.stop()


def test_at_most_as_many_are_in_flight_as_the_resource_allows(tmp_path: Path) -> None:
    run = Many(tmp_path, 200)
    gate = threading.Event()
    do = run.pool._do
    run.pool._do = lambda job, times: do(job, times) if gate.wait(SECONDS) else None
    process = run.start("--resources", "requests=5")
    wait_for(lambda: run.pool.asked.total() > 0 or process.poll() is not None, SECONDS)
    time.sleep(1.0)  # for those that would be too many
    assert len(list((tmp_path / ".snakemake/incomplete").glob("*"))) == 2 * 5
    gate.set()
    status, output = run.end(process)
    assert status == 0, output[-3000:]
    assert run.made() == 200
    run.pool.stop()


@pytest.mark.parametrize("plugins", [("--executor", "emoprobe"), ("--scheduler", "emoprobe"), ()])
def test_each_plugin_works_without_the_other(tmp_path: Path, plugins: tuple[str, ...]) -> None:
    run = Many(tmp_path, 20, plugins)
    status, output = run.finish()
    assert status == 0, output[-3000:]
    assert run.made() == 20
    assert set(run.pool.asked.values()) == {1}
    run.pool.stop()


def test_records_are_those_of_any_executor(tmp_path: Path) -> None:
    """What makes a file again is the same whoever runs the job, and the process and its paths are no part of it."""
    found = []
    for name, plugins in (("ours", PLUGINS), ("snakemake", ())):
        folder = tmp_path / name
        folder.mkdir()
        run = Many(folder, 5, plugins, copied=False)
        assert run.finish()[0] == 0
        first = run.records()
        assert run.finish(made_from="y")[0] == 0  # over records that are there
        assert set(run.pool.asked.values()) == {2}
        found.append((first, run.records()))
        run.plugins = () if plugins else PLUGINS
        other = run.finish("-n", made_from="y")
        assert "Nothing to be done" in other[1], other[1]
        run.pool.stop()
    for record in [record for pair in found for records in pair for record in records.values()]:
        assert "ask.py" in record.pop("shellcmd")
        assert record["params"] in (["'x'", "7"], ["'y'", "7"])
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]
