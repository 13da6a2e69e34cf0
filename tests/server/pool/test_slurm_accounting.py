"""A SLURM that keeps accounts changes nothing for the pool, and a failure of its database service neither."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.pool.house import until
from tests.server.pool.slurm_house import Jobs, job_of, jobs
from tests.slurm import Slurm, running


@pytest.fixture(scope="module")
def accounting() -> Iterator[Slurm]:
    """A cluster with slurmdbd and a database."""
    with running(accounting=True) as cluster:
        yield cluster


def test_a_job_answers_is_taken_away_and_comes_back(accounting: Slurm, tmp_path: Path) -> None:
    async def scenario() -> None:
        made: Jobs
        async with jobs(tmp_path) as made:
            worker = made.add()
            await made.live()
            assert await made.ask() == [None]
            accounting.signal("slurmdbd", signal.SIGKILL)
            accounting.run("scancel", "--batch", "--signal=TERM", job_of(worker))
            await until(lambda: worker.restarts == 1 and worker.state == "live")
            assert await made.ask(1) == [None]

    asyncio.run(scenario())
    accounting.wait_until_empty()
