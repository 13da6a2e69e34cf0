"""Activation folders on the disk of a server elsewhere come here whole, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from emoprobe.results import activations
from server.pool.connections import Connections, RequestError, fetch_from_server
from tests.conftest import PATIENCE
from tests.nnsight_server import NNsightServer


@pytest.fixture(scope="module")
def server(nnsight_server: Callable[[str], NNsightServer]) -> NNsightServer:
    return nnsight_server("llama")


def captured(server: NNsightServer, save_dir: str) -> dict[str, Any]:
    """The answer to a capture."""
    body = {"model": "tiny", "prompt": [5, 6, 7], "max_tokens": 0, "ndif": {"save_dir": save_dir, "positions": "all"}}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=PATIENCE)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def fetch(server: NNsightServer, folder: Path, save_dir: str, answer: dict[str, Any]) -> None:
    async def run() -> None:
        connections = Connections(server.url, None, foreign=True)
        try:
            await fetch_from_server(folder, save_dir, connections, answer)
        finally:
            await connections.close()

    asyncio.run(run())


def test_a_folder_moves_here(server: NNsightServer, tmp_path: Path) -> None:
    answer = captured(server, "far/activations/calm/sum_0001")
    there = server.root / "far/activations/calm/sum_0001"
    written = {path.name: path.read_bytes() for path in there.iterdir()}
    fetch(server, tmp_path / "here", "far/activations/calm/sum_0001", answer)
    assert {path.name: path.read_bytes() for path in (tmp_path / "here").iterdir()} == written
    assert activations.check(tmp_path / "here", None, [5, 6, 7]) == []
    assert not there.exists()


def test_a_folder_that_changed_on_the_way_is_refused(server: NNsightServer, tmp_path: Path) -> None:
    answer = captured(server, "far/changed")
    path = server.root / "far/changed/activations.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(RequestError, match="their hash differs"):
        fetch(server, tmp_path / "here", "far/changed", answer)
    assert not (tmp_path / "here").exists()


def test_a_folder_that_is_gone_is_told(server: NNsightServer, tmp_path: Path) -> None:
    answer = captured(server, "far/gone")
    httpx.delete(f"{server.url}/v1/activations/far/gone", timeout=PATIENCE)
    with pytest.raises(RequestError, match="status 404"):
        fetch(server, tmp_path / "here", "far/gone", answer)


@pytest.mark.parametrize(
    "path", ["..%2f..%2fetc/metadata.json", "%2e%2e/metadata.json", "far/secret.txt", ".hidden/metadata.json"]
)
def test_nothing_else_can_be_read_or_deleted(server: NNsightServer, path: str) -> None:
    (server.root / "far").mkdir(parents=True, exist_ok=True)
    (server.root / "far/secret.txt").write_text("mine")
    for method in ("GET", "DELETE"):
        assert httpx.request(method, f"{server.url}/v1/activations/{path}", timeout=PATIENCE).status_code in (400, 404)
    # A folder that holds others is none of activations.
    assert httpx.delete(f"{server.url}/v1/activations/far", timeout=PATIENCE).status_code == 400
    assert (server.root / "far/secret.txt").exists()


def test_tensors_and_metadata_of_two_captures_are_refused(tmp_path: Path) -> None:
    tensors = b"tensors of the first"
    digest = hashlib.sha256(tensors).hexdigest()

    class Replaced:
        """A server whose folder is replaced after its first file was read."""

        async def get(self, path: str) -> bytes:
            return json.dumps({"sha256": "0" * 64}).encode() if path.endswith("json") else tensors

        async def delete(self, path: str) -> None:
            raise AssertionError

    with pytest.raises(RequestError, match="their hash differs"):
        asyncio.run(fetch_from_server(tmp_path / "here", "far/replaced", Replaced(), {"ndif": {"sha256": digest}}))
    assert not (tmp_path / "here").exists()
