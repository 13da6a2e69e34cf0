"""Snakemake with this project's plugins, at a pool that answers at once: no job is lost, made twice, or recorded otherwise."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

from server.pool.protocol import Job
from tests.server.pool.instant_pool import InstantPool
from tests.workspace import ROOT, wait_for

JOBS = 1500
SECONDS = 300.0
SNAKEFILE = """
from emoprobe.workflow import process
from snakemake_scheduler_plugin_emoprobe.lighter import lighten
from snakemake.scheduling.job_scheduler import JobScheduler

if config.get("lighter", 1):
    lighten()
JobScheduler.exit_gracefully = process.in_thread(JobScheduler.exit_gracefully)
JOBS = [f"g_{number:05d}" for number in range(config["jobs"])]

rule all:
    input: expand("{variant}/{sample}/b.txt", variant=["calm"], sample=JOBS), "sum.txt"

rule first:
    output: "first.txt"
    log: "logs/first.log"
    shell: "echo 1 > {output}"

rule make:
    input: "first.txt"
    output: "{variant}/{sample}/a.txt", "{variant}/{sample}/b.txt"
    log: "logs/{variant}/{sample}.log"
    params: made_from=config.get("made_from", "x"), number=lambda wildcards: len(wildcards.sample)
    shell: 'source "$EMOPROBE_CLIENT" generate one {wildcards.variant} {wildcards.sample} 2> {log}'

rule sum:
    input: expand("calm/{sample}/a.txt", sample=JOBS)
    output: "sum.txt"
    shell: "ls calm | wc -l > {output}"
"""


class Many:
    """A folder with many jobs, and the pool that does them."""

    def __init__(self, folder: Path, jobs: int = JOBS) -> None:
        self.folder, self.jobs = folder, jobs
        self.failing: dict[str, int] = {}
        """Sample → how many times it fails."""
        self.done = 0
        self.drop_at: set[int] = set()
        (folder / "Snakefile").write_text(SNAKEFILE)
        self.pool = InstantPool(folder / "pool/a.address", self._do)

    def _do(self, job: Job, times: int) -> str | None:
        self.done += 1
        if self.done in self.drop_at:
            self.pool.drop()
        if times <= self.failing.get(job.sample, 0):
            return f"{job.pair}: refused\n"
        folder = self.folder / job.variant / job.sample
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("a.txt", "b.txt"):
            (folder / name).write_text("made")
        return ""

    def start(self, *arguments: str, **config: Any) -> subprocess.Popen[str]:
        environment = {
            "PYTHONPATH": str(ROOT),
            "EMOPROBE_POOL": str(self.folder / "pool/a.address"),
            "EMOPROBE_PLAN": str(self.folder),
            "EMOPROBE_RESULTS": str(self.folder),
            "EMOPROBE_DIRECTORY": str(self.folder),
            "EMOPROBE_OWNER": str(os.getpid()),
            "EMOPROBE_PYTHON": sys.executable,
        }
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--executor",
            "emoprobe",
            "--scheduler",
            "emoprobe",
            "--cores",
            "64",
        ]
        command += ["--max-jobs-per-timespan", "1000/1s", "--keep-going", "--rerun-incomplete", "--quiet", "rules"]
        config = {"jobs": self.jobs} | config
        command += [*arguments, "--config", *(f"{key}={value}" for key, value in config.items())]
        return subprocess.Popen(
            command, cwd=self.folder, env={**os.environ, **environment}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def finish(self, *arguments: str, **config: Any) -> tuple[int, str]:
        process = self.start(*arguments, **config)
        output, _ = process.communicate(timeout=SECONDS)
        return process.returncode, output

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
        output, _ = process.communicate(timeout=SECONDS)
        assert process.returncode == 1, output[-3000:]
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
    process.communicate(timeout=SECONDS)
    status, output = run.finish("--unlock")
    assert status == 0, output[-3000:]
    status, output = run.finish()
    assert status == 0, output[-3000:]
    assert run.made() == 200
    assert len(run.records()) == 400
    run.pool.stop()


def test_records_are_snakemakes_own(tmp_path: Path) -> None:
    """What makes a file again is what it is without this project's changes to Snakemake."""
    found = []
    for lighter in (0, 1):
        folder = tmp_path / f"run{lighter}"
        folder.mkdir()
        run = Many(folder, 5)
        assert run.finish(lighter=lighter)[0] == 0
        first = run.records()
        assert run.finish(lighter=lighter, made_from="y")[0] == 0  # over records that are there
        assert set(run.pool.asked.values()) == {2}
        found.append((first, run.records()))
        other = run.finish("-n", lighter=1 - lighter, made_from="y")
        assert "Nothing to be done" in other[1], other[1]
        run.pool.stop()
    assert found[0] == found[1]
    assert found[0][0] != found[0][1]
