"""The requests that one run has in flight."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server.pool.protocol import Access, Caller, GenerateJob, JobRequest
from snakemake_executor_plugin_emoprobe import REQUEST
from snakemake_executor_plugin_emoprobe.desk import Desk
from tests.conftest import PATIENCE
from tests.workspace import wait_for


class Receiver:
    """A pool that answers nothing."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def ask(self, numbered: list[Any]) -> None:
        self.asked += numbered

    def close(self) -> None:
        pass


class Job:
    """A job of a plan that is a request."""

    priority = 0

    def __init__(self, number: int, access: Access) -> None:
        self.jobid = number
        self.params = {REQUEST: JobRequest(access, GenerateJob("pilot", "joy", f"sum_{number:04d}"))}

    async def prepare(self) -> None:
        pass


@pytest.mark.parametrize(("resource", "servers", "limit"), [(64, 256, 256), (64, 8, 64), (4, 0, 4)])
def test_the_resource_of_the_profile_does_not_hold_back_requests_that_servers_take(
    resource: int, servers: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor: Any = SimpleNamespace(
        workflow=SimpleNamespace(async_run=asyncio.run, scheduler=SimpleNamespace(executor_error_callback=print)),
        is_shown=lambda: False,
        report_job_submission=lambda info: None,
    )
    pool = Receiver()
    monkeypatch.setattr(Desk, "_client", lambda self, receiver: pool)
    desk = Desk(executor, resource)
    access = Access(
        Path("address"), Caller("plan", "results", "/", 0), "python", Path("code"), {"pilot": (0, 0)}, servers
    )
    desk.take([Job(number, access) for number in range(300)])
    try:
        wait_for(lambda: len(pool.asked) >= limit, PATIENCE, "the requests")
        assert len(pool.asked) == limit
    finally:
        desk.close()
