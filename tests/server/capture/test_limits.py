"""The limits on requests, in front of an application that reads bodies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from server.capture.limits import RequestLimits


def client(
    gate: asyncio.Event | None = None, key: str | None = None, body: int = 100, bodies: int = 250, requests: int = 2
) -> httpx.AsyncClient:
    async def echo(request: Request) -> PlainTextResponse:
        content = await request.body()
        if gate is not None:
            await gate.wait()
        return PlainTextResponse(str(len(content)))

    app = Starlette(routes=[Route("/echo", echo, methods=["POST"]), Route("/health", echo)])
    limited = RequestLimits(app, key, body, bodies, requests)
    return httpx.AsyncClient(transport=httpx.ASGITransport(limited), base_url="http://test")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("secret", 401),
        ("Basic secret", 401),
        ("Bearer secret", 200),
        ("bearer  secret", 200),
    ],
)
def test_a_key_lets_in(header: str | None, status: int) -> None:
    async def run() -> httpx.Response:
        async with client(key="secret") as session:
            assert (await session.get("/health")).status_code == 200
            return await session.post("/echo", headers={} if header is None else {"Authorization": header})

    answer = asyncio.run(run())
    assert answer.status_code == status
    assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize(("size", "status"), [(0, 200), (100, 200), (101, 413)])
def test_a_body_has_a_size(size: int, status: int) -> None:
    async def run() -> int:
        async with client() as session:
            return (await session.post("/echo", content=b"x" * size)).status_code

    assert asyncio.run(run()) == status


def test_a_body_in_parts_is_counted_whole() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(11):
            yield b"x" * 10

    async def run() -> int:
        async with client() as session:
            return (await session.post("/echo", content=parts())).status_code

    assert asyncio.run(run()) == 413


@pytest.mark.parametrize(("bodies", "size"), [(250, 1), (150, 100)])
def test_too_much_at_once_is_refused_and_forgotten(bodies: int, size: int) -> None:
    """A third request (or one more large body) than fits is refused; when the others are done, it is let in."""

    async def run() -> tuple[int, list[int], int]:
        gate = asyncio.Event()
        async with client(gate, bodies=bodies, requests=2 if size == 1 else 9) as session:
            held = [
                asyncio.create_task(session.post("/echo", content=b"x" * size)) for _ in range(2 if size == 1 else 1)
            ]
            for _ in range(20):
                await asyncio.sleep(0)
            refused = await session.post("/echo", content=b"x" * size)
            gate.set()
            done = [(await task).status_code for task in held]
            return refused.status_code, done, (await session.post("/echo", content=b"x" * size)).status_code

    refused, done, after = asyncio.run(run())
    assert (refused, after) == (429, 200)
    assert set(done) == {200}
