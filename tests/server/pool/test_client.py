"""The command that asks: one pool is started, whoever asks first, and the exit status says what came of the job."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emoprobe.config.files import parse_config
from server.pool.address import pool_status
from server.pool.client import OWNERLESS, PoolClient
from server.pool.protocol import Access, Caller, JobRequest, job_of
from server.pool.run import address_path
from tests.conftest import StubServer
from tests.server.pool.house import SECONDS, House, trajectory
from tests.workspace import ROOT, wait_for

Client = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def client(house: House, stub: Callable[..., StubServer], monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """Start clients of a plan of two experiments at one endpoint."""
    workers = {"endpoints": [stub().url], "model_name": "stub"}
    configs = {}
    for name in ("one", "two"):
        house.add(name, workers=workers)
        configs[name] = parse_config({"experiment": {"name": name}, "model": {"source": "a"}, "workers": workers})
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(house.folder / "runtime"))
    monkeypatch.chdir(house.folder)
    house.address = address_path(configs, ROOT)
    caller = Caller("plan", "results", str(house.folder), house.owner.pid)

    def start(*words: str) -> subprocess.Popen[str]:
        command = str(JobRequest(Access(house.address, caller, sys.executable, ROOT), job_of(list(words))))
        return subprocess.Popen(["bash", "-c", command], stderr=subprocess.PIPE, text=True)

    yield start
    house.owner.kill()
    house.owner.wait()
    wait_for(lambda: pool_status(house.address) is None, SECONDS, "the end of the pool")


def test_clients_share_one_pool_that_ends_with_its_owner(house: House, client: Client) -> None:
    clients = [client("generate", name, "calm", "gsm8k_0001") for name in ("one", "two", "one")]
    for process in clients:
        _, words = process.communicate(timeout=SECONDS)
        assert (process.returncode, words) == (0, "")
    status = pool_status(house.address)
    assert status is not None
    assert status["owners"] == [house.owner.pid]
    assert [worker["served"] for fleet in status["fleets"] for worker in fleet["workers"]] == [3]
    for name in ("one", "two"):
        assert trajectory(house.layout(name), "calm", "gsm8k_0001").state
    assert (house.results / "logs/pool.log").exists()
    assert house.address.stat().st_mode & 0o077 == 0
    assert house.address.parent.stat().st_mode & 0o077 == 0
    house.owner.kill()
    house.owner.wait()
    wait_for(lambda: not Path(f"/proc/{status['pid']}").exists(), SECONDS, "the end of the pool's process")
    assert not house.address.exists()


def test_a_client_tells_why_a_job_failed(client: Client) -> None:
    process = client("generate", "one", "calm", "gsm8k_0099")
    _, words = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "gsm8k_0099.json is missing" in words


def test_a_command_that_is_pasted_after_its_workflow_does_its_job_for_itself(house: House, client: Client) -> None:
    house.owner.kill()
    process = client("generate", "one", "calm", "gsm8k_0001")  # its owner is a zombie now
    _, words = process.communicate(timeout=SECONDS)
    assert (process.returncode, words) == (0, "")
    assert trajectory(house.layout("one"), "calm", "gsm8k_0001").state
    wait_for(lambda: not house.address.exists(), SECONDS, "the end of the pool")


def test_nobody_starts_a_pool_for_a_workflow_that_is_gone(house: House, client: Client) -> None:
    answers: list[str] = []
    house.owner.kill()
    house.owner.wait()
    access = Access(house.address, Caller("plan", "results", str(house.folder), house.owner.pid), sys.executable, ROOT)
    asking = PoolClient(access, lambda _, reason: answers.append(reason))
    asking.ask([(0, job_of(["generate", "one", "calm", "gsm8k_0001"]))])
    wait_for(lambda: bool(answers), SECONDS, "an answer")
    assert answers == [OWNERLESS]
    asking.close()
