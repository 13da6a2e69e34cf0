"""What is believed of what lies in the folder that pool and jobs share, and what the end of a job means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from server.pool.connections import Connections
from server.pool.slurm.cluster import JobState, judge
from server.pool.slurm.folder import JobFolder, PoolFolder
from tests.conftest import StubServer
from tests.server.pool.slurm_house import KEY


def test_a_living_pools_jobs_are_left_alone(tmp_path: Path) -> None:
    other = PoolFolder(tmp_path, "emoprobe-other")
    assert PoolFolder(tmp_path, "emoprobe-mine").leftovers() == []
    assert other.path.exists()


def test_an_address_with_another_nonce_is_not_believed(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "job", {"nonce": "right"}, KEY)
    assert folder.address() is None
    for content, believed in (
        ('{"host": "h", "port": 1, "nonce": "wrong", "node": "n", "hardware": "CPU"}', False),
        ('{"host": "h", "po', False),
        ('{"host": "h"}', False),
        ('{"host": "h", "port": 1, "nonce": "right", "node": "n", "hardware": "CPU"}', True),
    ):
        (folder.path / "address.json").write_text(content)
        assert (folder.address() is not None) is believed


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
