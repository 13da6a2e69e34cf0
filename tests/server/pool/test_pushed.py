"""Captures that their server pushes: what the pool says where it cannot have them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.server.pool.house import House
from tests.server.pool.test_api import Api, serving
from tests.stub_server import reply

PAIR = ("control", "gsm8k_0001")


class PushingStub(Api):
    """A capture server that says that it has pushed."""

    def __init__(self, crumb: dict[str, Any]) -> None:
        super().__init__()
        self.model, self.crumb = "a", crumb

    async def complete(self, send: Any, request: dict[str, Any], text: str) -> None:
        self.requests.append(request)
        await reply(send, 200, {"ndif": request["ndif"] | self.crumb})


def captured(house: House, crumb: dict[str, Any], url: str) -> str:
    async def scenario() -> str:
        async with serving(PushingStub(crumb)) as urls, house.pool():
            workers = {"capture_endpoints": urls, "capture_files": "push", "attempts": 1}
            house.add("two")
            house.add("one", workers=workers, capture={"enabled": True}, storage={"url": url})
            assert await house.ask("generate", "one", *PAIR) == "ok\n"
            return await house.ask("capture", "one", *PAIR)

    return asyncio.run(scenario())


def test_a_shard_that_is_missing_is_no_bug(house: House, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/bucket"
    crumb = {"uri": f"{url}/shards/{'0' * 64}.shard", "offset": 100, "length": 96, "sha256": "0" * 64}
    answer = captured(house, crumb, url)
    assert answer.startswith("control/gsm8k_0001: ")
    assert "the shard is missing" in answer
    assert "bug" not in answer


@pytest.mark.parametrize("crumb", [{}, {"uri": "file:///b/shards/0.shard", "offset": 1, "length": "x", "sha256": ""}])
def test_a_breadcrumb_without_a_place_is_a_failed_attempt(house: House, tmp_path: Path, crumb: dict[str, Any]) -> None:
    answer = captured(house, crumb, f"file://{tmp_path}/bucket")
    assert "does not tell where the activations were pushed to" in answer
