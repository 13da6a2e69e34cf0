"""What is believed of what lies in the folder that pool and jobs share, and what the end of a job means."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from server.pool.connections import Connections
from server.pool.slurm import folder
from server.pool.slurm.cluster import JobState, judge
from server.pool.slurm.folder import JobFolder, PoolFolder
from tests.conftest import StubServer
from tests.server.pool.slurm_house import KEY


def test_a_living_pools_jobs_are_left_alone(tmp_path: Path) -> None:
    other = PoolFolder(tmp_path, "emoprobe-other")
    assert PoolFolder(tmp_path, "emoprobe-mine").leftovers() == []
    assert other.path.exists()


def test_a_pool_that_is_being_made_is_not_taken_for_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, found = PoolFolder(tmp_path, "emoprobe-mine"), []
    write = folder.private_file

    def elsewhere(path: Path, text: str) -> None:
        write(path, text.replace(socket.gethostname(), "another-host"))
        found.append(mine.leftovers())

    monkeypatch.setattr(folder, "private_file", elsewhere)
    PoolFolder(tmp_path, "emoprobe-other")
    assert found == [[], []]


def test_a_disk_that_is_full_lets_no_pool_of_another_host_seem_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, mine = PoolFolder(tmp_path, "emoprobe-other"), PoolFolder(tmp_path, "emoprobe-mine")
    record = other.path / "pool.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "host": "another-host"}))

    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "NamedTemporaryFile", full)
        assert mine.leftovers() == []
    (other.path / "lease").unlink()
    assert mine.leftovers() == [("emoprobe-other", other.path)]


def test_an_address_with_another_nonce_is_not_believed(tmp_path: Path) -> None:
    job = JobFolder(tmp_path / "job", {"nonce": "right"}, KEY)
    assert job.address() is None
    for content, believed in (
        ('{"host": "h", "port": 1, "nonce": "wrong", "node": "n", "hardware": "CPU"}', False),
        ('{"host": "h", "po', False),
        ('{"host": "h"}', False),
        ('{"host": "h", "port": 1, "nonce": "right", "node": "n", "hardware": "CPU"}', True),
    ):
        (job.path / "address.json").write_text(content)
        assert (job.address() is not None) is believed


def test_another_server_at_the_address_is_not_believed_and_not_given_the_key(stub: Callable[..., StubServer]) -> None:
    server = stub()

    async def health() -> tuple[str, bool]:
        connections = Connections(server.url, KEY, foreign=False, nonce="nonce")
        try:
            return await connections.health(), connections.listening
        finally:
            await connections.close()

    reason, listening = asyncio.run(health())
    assert "another server answers" in reason
    assert not listening


@pytest.mark.parametrize(
    ("state", "counts"),
    [
        ("PREEMPTED", False), ("TIMEOUT", False), ("NODE_FAIL", False), ("BOOT_FAIL", False),
        ("FAILED", True), ("OUT_OF_MEMORY", True), ("COMPLETED", True),
    ],
)  # fmt: skip
def test_what_counts_as_a_restart(state: str, counts: bool) -> None:
    ended = judge("7", JobState(state, "None", "n1"), "it ended", [])
    assert (ended.again, ended.counts) == (True, counts)
