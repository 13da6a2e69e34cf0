"""The thin client in bash: it starts one pool, whoever asks first, and its exit status says what came of the job."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emoprobe.config.files import parse_config
from server.pool.address import pool_status
from server.pool.run import job_environment
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
    environment = job_environment(house.plan, house.results, ROOT, sys.executable, configs, house.owner.pid)
    house.address = Path(environment["EMOPROBE_POOL"])

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = f'source "$EMOPROBE_CLIENT" {" ".join(arguments)}'
        return subprocess.Popen(
            ["bash", "-c", command], env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True
        )

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


def test_a_client_of_a_workflow_that_is_gone_starts_no_pool(house: House, client: Client) -> None:
    house.owner.kill()
    process = client("generate", "one", "calm", "gsm8k_0001")  # its owner is a zombie now
    process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert not house.address.exists()
