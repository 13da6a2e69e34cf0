"""What stands before a server that others on the network can reach."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from server.guard import CHALLENGE, KEY_VARIABLE, NONCE_VARIABLE, PROOF, Guard, proof
from tests.stub_server import reply

KEY, NONCE = "the key", "the nonce"


async def application(scope: Any, receive: Any, send: Any) -> None:
    await reply(send, 200, {"path": scope["path"]})


def get(path: str, headers: dict[str, str]) -> httpx.Response:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=Guard(application))
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setenv(NONCE_VARIABLE, NONCE)


def test_it_proves_who_it_is_to_whoever_asks_without_telling_the_key() -> None:
    answer = get("/health", {CHALLENGE: "guess"})
    assert answer.status_code == 200
    assert answer.headers[PROOF] == proof(KEY, NONCE, "guess")
    assert answer.headers[PROOF] not in (proof(KEY, "other", "guess"), proof("other", NONCE, "guess"))
    assert PROOF not in get("/health", {}).headers


@pytest.mark.parametrize("path", ["/v1/models", "/tokenize", "/metrics", "/invocations", "/docs", "/healthy"])
@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer ", "Basic the key", "the key"])
def test_every_other_path_demands_the_key(path: str, given: str | None) -> None:
    assert get(path, {} if given is None else {"Authorization": given}).status_code == 401


def test_whoever_has_the_key_is_let_in() -> None:
    assert get("/tokenize", {"Authorization": f"Bearer {KEY}"}).json() == {"path": "/tokenize"}


def test_without_a_key_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(KeyError):
        Guard(application)
