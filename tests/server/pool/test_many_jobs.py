"""The client of many jobs tells of each exactly once, whatever becomes of connections and pools."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from emoprobe.config.files import parse_config
from server.pool.client import AWAY, PoolClient
from server.pool.protocol import Access, Caller, GenerateJob, Job
from server.pool.run import address_path
from tests.conftest import StubServer
from tests.server.pool.house import SECONDS, House, trajectory
from tests.server.pool.instant_pool import InstantPool
from tests.workspace import ROOT, wait_for

JOBS = 5000
CALLER = Caller("/plan", "/results", "/", os.getpid())


def job(number: int) -> GenerateJob:
    return GenerateJob("one", "calm", f"gsm8k_{number:04d}")


def access(folder: Path, python: str = sys.executable) -> Access:
    return Access(folder / "pool/a.address", CALLER, python, ROOT)


def sample_of(job: Job) -> str:
    assert isinstance(job, GenerateJob)
    return job.sample


class Told:
    """What a client told of each job."""

    def __init__(self, count: int) -> None:
        self._count, self._complete = count, threading.Event()
        self.reasons: dict[int, str] = {}
        self.times: Counter[int] = Counter()

    def __call__(self, number: int, reason: str) -> None:
        self.reasons[number] = reason
        self.times[number] += 1
        if len(self.reasons) == self._count:
            self._complete.set()

    def wait(self) -> None:
        assert self._complete.wait(SECONDS), f"{self._count - len(self.reasons)} jobs were never told of"
        assert set(self.times.values()) == {1}


def test_each_of_many_jobs_is_told_of_once(tmp_path: Path) -> None:
    pool = InstantPool(tmp_path / "pool/a.address", lambda job, _: "no\n" if sample_of(job).endswith("7") else "")
    told = Told(JOBS)
    client = PoolClient(access(tmp_path), told)
    for number in range(JOBS):
        client.ask([(number, job(number))])
    told.wait()
    assert {number for number, reason in told.reasons.items() if reason == "no\n"} == set(range(7, JOBS, 10))
    assert pool.connections == 1
    client.close()
    pool.stop()


def test_jobs_of_a_connection_that_ends_are_asked_again(tmp_path: Path) -> None:
    """The pool goes away twice in the middle, with answers on their way."""
    done = 0

    def do(_: Job, __: int) -> str:
        nonlocal done
        done += 1
        if done in (JOBS // 3, JOBS // 2):
            pool.drop()
        return ""

    pool = InstantPool(tmp_path / "pool/a.address", do)
    told = Told(JOBS)
    client = PoolClient(access(tmp_path), told)
    for number in range(JOBS):
        client.ask([(number, job(number))])
    told.wait()
    assert set(told.reasons.values()) == {""}
    client.close()
    pool.stop()


def test_a_job_that_no_pool_survives_fails(tmp_path: Path) -> None:
    pool = InstantPool(tmp_path / "pool/a.address", lambda *_: pool.drop())
    told = Told(1)
    client = PoolClient(access(tmp_path), told)
    client.ask([(3, job(3))])
    told.wait()
    assert told.reasons == {3: AWAY}
    assert pool.asked[job(3)] == pool.connections == 4
    client.close()
    pool.stop()


def test_a_closed_client_tells_no_more(tmp_path: Path) -> None:
    gate = threading.Event()
    pool = InstantPool(tmp_path / "pool/a.address", lambda *_: "late" if gate.wait(SECONDS) else None)
    told = Told(1)
    client = PoolClient(access(tmp_path), told)
    client.ask([(1, job(1))])
    wait_for(lambda: pool.asked[job(1)] == 1, SECONDS)
    client.close()
    gate.set()
    pool.stop()
    assert not told.reasons


def test_a_pool_that_cannot_start_fails_the_jobs_with_its_reason(tmp_path: Path) -> None:
    told = Told(3)
    client = PoolClient(access(tmp_path, str(tmp_path / "no-python")), told)
    for number in range(3):
        client.ask([(number, job(number))])
    told.wait()
    assert all("The pool cannot be started" in reason for reason in told.reasons.values())
    client.close()


def test_the_real_pool_is_started_and_answers_many(
    house: House, stub: Callable[..., StubServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = {"endpoints": [stub().url], "model_name": "stub"}
    house.add("one", workers=workers)
    config = parse_config({"experiment": {"name": "one"}, "model": {"source": "a"}, "workers": workers})
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(house.folder / "runtime"))
    monkeypatch.chdir(house.folder)
    address = address_path({"one": config}, ROOT)
    caller = Caller("plan", "results", str(house.folder), house.owner.pid)
    told = Told(2)
    client = PoolClient(Access(address, caller, sys.executable, ROOT), told)
    client.ask([(1, GenerateJob("one", "calm", "gsm8k_0001"))])
    client.ask([(2, GenerateJob("one", "calm", "gsm8k_0099"))])
    told.wait()
    assert told.reasons[1] == ""
    assert "gsm8k_0099.json is missing" in told.reasons[2]
    assert trajectory(house.layout("one"), "calm", "gsm8k_0001").state
    client.close()
    house.owner.kill()
    house.owner.wait()
    wait_for(lambda: not address.exists(), SECONDS, "the end of the pool")
