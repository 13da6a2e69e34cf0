"""Servers that are jobs of a real SLURM: they wait, answer, are taken away, come back, and leave nothing behind."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.pool.fleet import FleetDownError
from server.pool.slurm.folder import FOLDER
from server.pool.worker import WorkerLimits
from tests.server.pool.house import SECONDS, until
from tests.server.pool.slurm_house import KEY, SMALL, Jobs, job_of, jobs, node_of, script, stub_command, urgent
from tests.slurm import Slurm
from tests.workspace import ROOT


@pytest.fixture(autouse=True)
def idle(slurm: Slurm) -> Iterator[None]:
    """Every test finds and leaves an idle cluster."""
    yield
    slurm.make_idle()


def test_a_job_answers_and_is_ended(slurm: Slurm, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            worker = made.add()
            assert await made.ask() == [None]
            assert worker.phase() == "idle"
            assert set(slurm.jobs()) == {int(job_of(worker))}

    asyncio.run(scenario())
    slurm.wait_until_empty()


def test_the_key_is_nowhere_to_be_read(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_TOKEN", KEY)  # of the user's own environment nothing goes along but what is listed
    seen: list[bytes] = []

    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            worker = made.add()
            await made.ask()
            job = job_of(worker)
            await asyncio.to_thread(look, made, job)

    def look(made: Jobs, job: str) -> None:
        seen.append(slurm.run("scontrol", "show", "job", "--details", job).encode())
        seen.append(slurm.run("scontrol", "write", "batch_script", job, "-").encode())
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                seen.append((entry / "cmdline").read_bytes())
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if f"SLURM_JOB_ID={job}\0".encode() in environment and b"tests.guarded_stub" not in seen[-1]:
                seen.append(environment)
            elif f"SLURM_JOB_ID={job}\0".encode() in environment:
                assert b"SOME_TOKEN" not in environment
        for folder in (tmp_path, slurm.folder):
            seen.extend(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        for path in (tmp_path / FOLDER).rglob("*"):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path

    asyncio.run(scenario())
    assert len(seen) > 5
    assert not [each for each in seen if KEY.encode() in each]


def test_a_preempted_job_is_submitted_again_at_no_cost(slurm: Slurm, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            delays = iter([3600.0])
            worker = made.add(lambda: stub_command(next(delays, 0.0)))
            asked = asyncio.create_task(made.ask())
            await until(lambda: worker.in_flight == 1)
            first = job_of(worker)
            other = await asyncio.to_thread(urgent, slurm)
            await until(lambda: "waits in SLURM's queue (" in worker.phase())
            assert "SLURM wants" in (worker.error or "")
            assert job_of(worker) != first
            slurm.run("scancel", other)
            failed, answered = await asked
            assert failed is not None
            assert answered is None

    asyncio.run(scenario())


def test_being_taken_away_never_uses_up_restarts_or_attempts(slurm: Slurm, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            delays = iter([3600.0] * 3)
            worker = made.add(lambda: stub_command(next(delays, 0.0)))
            asked = asyncio.create_task(made.ask())
            for number in range(1, 4):
                await until(lambda: worker.in_flight == 1)
                slurm.run("scancel", "--batch", "--signal=TERM", job_of(worker))  # as SLURM warns
                await until(lambda number=number: worker.restarts == number)  # type: ignore[misc]
            errors = await asked
            assert len(errors) == 4  # three of them failed, which is all that a request may, and cost nothing
            assert worker.state == "live"

    asyncio.run(scenario())


def test_a_job_whose_time_is_nearly_up_is_followed_by_the_next(slurm: Slurm, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            worker = made.add()
            await made.live()
            slurm.run("scontrol", "update", f"JobId={job_of(worker)}", "TimeLimit=1")  # so that the warning is due
            await until(lambda: worker.restarts == 1 and worker.state == "live")
            assert "SLURM wants" in (worker.error or "")
            assert await made.ask() == [None]

    asyncio.run(scenario())


def test_requests_move_when_a_node_is_lost(slurm: Slurm, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            first, second = (made.add(shape=SMALL.model_copy(update={"cpus": 3})) for _ in range(2))
            await made.live()
            node = node_of(slurm, first)
            assert node_of(slurm, second) != node
            slurm.kill_node(node)
            assert (await made.ask())[-1] is None
            await until(lambda: first.restarts == 1)
            assert "counts" not in (first.error or "")
            slurm.start_node(node)
            await until(lambda: first.state == "live")
            assert second.restarts == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("daemon", ["slurmctld", "slurmd"])
def test_servers_outlive_slurms_own_daemons(slurm: Slurm, tmp_path: Path, daemon: str) -> None:
    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            worker = made.add()
            await made.live()
            name = daemon if daemon == "slurmctld" else node_of(slurm, worker)
            slurm.signal(name, signal.SIGSTOP if daemon == "slurmctld" else signal.SIGKILL)
            try:
                await asyncio.sleep(3.0)
                assert await made.ask() == [None]
                assert worker.restarts == 0
            finally:
                slurm.signal(name, signal.SIGCONT) if daemon == "slurmctld" else slurm.start_node(name)

    asyncio.run(scenario())


def test_a_job_is_submitted_once_slurm_answers(slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.pool.slurm.cluster.COMMAND_SECONDS", 1.0)

    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            worker = made.add()
            slurm.signal("slurmctld", signal.SIGSTOP)
            try:
                asked = asyncio.create_task(made.ask())
                await until(lambda: "cannot be submitted" in worker.phase())
            finally:
                slurm.signal("slurmctld", signal.SIGCONT)
            assert await asked == [None]

    asyncio.run(scenario())
    slurm.wait_until_empty()


@pytest.mark.parametrize("squeue", ["exit 0", "exit 1", "echo 'squeue: error: no'; exit 0"])
def test_a_queue_that_says_nothing_ends_nothing(
    slurm: Slurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, squeue: str
) -> None:
    (tmp_path / "squeue").write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n{squeue}\n")
    (tmp_path / "squeue").chmod(0o755)

    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            worker = made.add()
            await made.live()
            monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
            await until((tmp_path / "asked").exists)
            await asyncio.sleep(1.0)
            assert await made.ask() == [None]
            assert worker.restarts == 0

    asyncio.run(scenario())


def test_an_impossible_constraint_is_told_at_once(slurm: Slurm, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            made.add(shape=SMALL.model_copy(update={"constraint": "unicorn"}))
            with pytest.raises(FleetDownError, match=r"SLURM refuses its job: .*Invalid feature specification"):
                await made.ask()

    asyncio.run(scenario())


def test_waiting_in_the_queue_is_told_and_uses_up_no_time_to_start(slurm: Slurm, tmp_path: Path) -> None:
    other = urgent(slurm)

    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            worker = made.add(limits=WorkerLimits(4, 1, start_timeout=4.0, hang_timeout=SECONDS))
            asked = asyncio.create_task(made.ask())
            await until(lambda: any(why in worker.phase() for why in ("(Resources)", "(Priority)")))
            await asyncio.sleep(5.0)
            assert worker.state == "starting"
            slurm.run("scancel", other)
            assert await asked == [None]

    asyncio.run(scenario())


def test_a_job_that_waits_too_long_is_given_up_with_slurms_reason(slurm: Slurm, tmp_path: Path) -> None:
    urgent(slurm)

    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            made.add(queue_timeout=3.0)
            with pytest.raises(FleetDownError, match=r"after 3 s \(workers.queue_timeout\): (Resources|Priority)"):
                await made.ask()

    asyncio.run(scenario())
    assert len(slurm.jobs()) == 1


def test_a_server_that_keeps_failing_is_given_up_and_its_log_is_told(slurm: Slurm, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            worker = made.add(lambda: script("print('no such weights', flush=True); raise SystemExit(3)"))
            with pytest.raises(FleetDownError) as failed:
                await made.ask()
            assert "exit status 3" in str(failed.value)
            assert "no such weights" in str(failed.value)
            assert worker.restarts == 1

    asyncio.run(scenario())


def test_a_lost_port_is_another_at_the_next_start(slurm: Slurm, tmp_path: Path) -> None:
    thief = "import socket, sys; s = socket.create_server((sys.argv[1], int(sys.argv[2]))); import runpy; sys.argv[1:] = sys.argv[1:3]; runpy.run_module('tests.guarded_stub', run_name='__main__')"

    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            commands = iter([script(thief)])
            worker = made.add(lambda: next(commands, stub_command()))
            assert await made.ask() == [None]
            assert worker.restarts == 1
            assert "took its port" in (worker.error or "")

    asyncio.run(scenario())


def test_a_draining_node_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            worker = made.add()
            await made.live()
            node = node_of(slurm, worker)
            slurm.run("scontrol", "update", f"NodeName={node}", "State=DRAIN", "Reason=test")
            await asyncio.sleep(1.5)
            assert await made.ask() == [None]
            assert worker.restarts == 0
            first = job_of(worker)
            slurm.run("scancel", first)  # as an administrator does in the end: the job moves, at no cost
            await until(lambda: worker.restarts == 1 and worker.state == "live")
            assert node_of(slurm, worker) != node
            assert await made.ask(1) == [None]

    asyncio.run(scenario())


# Longer than the pool takes to renew it, so that the job would stand for ever if the pool did.
LEASE = 15.0
POOL = """
import asyncio, sys
from pathlib import Path
from tests.server.pool.slurm_house import Jobs

async def main():
    made = Jobs(Path(sys.argv[1]))
    made.add(lease=float(sys.argv[2]))
    await made.live()
    print("live", flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""


def dead_pool(folder: Path) -> None:
    """A pool that had a server when it was killed."""
    pool = subprocess.Popen([sys.executable, "-c", POOL, str(folder), str(LEASE)], cwd=ROOT, stdout=subprocess.PIPE)
    assert pool.stdout is not None
    assert pool.stdout.readline() == b"live\n"
    pool.kill()
    pool.wait()


def test_a_dead_pools_jobs_are_cancelled_at_the_next_start(slurm: Slurm, tmp_path: Path) -> None:
    dead_pool(tmp_path)
    (left,) = slurm.jobs()

    async def scenario() -> None:
        async with jobs(tmp_path) as made:
            await made.cluster.open()
            await until(lambda: left not in slurm.jobs())
            assert len(list((tmp_path / FOLDER).iterdir())) == 1

    asyncio.run(scenario())


def test_a_dead_pools_jobs_end_with_their_lease(slurm: Slurm, tmp_path: Path) -> None:
    dead_pool(tmp_path)
    slurm.wait_until_empty()
    assert f"has not renewed its lease for {LEASE:g} s" in (tmp_path / "vllm-0.log").read_text()
