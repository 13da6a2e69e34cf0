"""Connections of clients that send too much, too little, too slowly, or nothing, at a real port."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from server.capture import limits
from server.capture.limits import LimitedProtocol, RequestLimits, connection_limit
from tests.conftest import PATIENCE
from tests.workspace import wait_for

BIG = 32 << 20
HEAD = b"POST /echo HTTP/1.1\r\nhost: x\r\n"
Serve = Callable[..., int]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Start a server with some limits and clocks; returns its port."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    async def echo(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    async def big(_: Request) -> PlainTextResponse:
        return PlainTextResponse("x" * BIG)

    def start(limit: int = 100, requests: int = 100, key: str | None = None, **constants: float) -> int:
        for name, value in constants.items():
            monkeypatch.setattr(limits, name, value)
        monkeypatch.setattr(LimitedProtocol, "limit", limit)
        app = Starlette(routes=[Route("/echo", echo, methods=["POST"]), Route("/big", big)])
        limited: Any = RequestLimits(app, key, 1 << 20, 1 << 24, requests)
        config = uvicorn.Config(limited, http=LimitedProtocol, ws="none", log_level="error", timeout_keep_alive=75)
        server = uvicorn.Server(config)
        listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((server, thread))
        wait_for(lambda: server.started, PATIENCE, "a server")
        return int(listening.getsockname()[1])

    yield start
    for server, thread in running:
        server.should_exit = server.force_exit = True
        thread.join(PATIENCE)


def connect(port: int, *parts: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
    for part in parts:
        connection.sendall(part)
    return connection


def rest(connection: socket.socket) -> bytes:
    """What comes until the server ends the connection."""
    answer = b""
    with suppress(ConnectionError):
        while part := connection.recv(1 << 16):
            answer += part
    return answer


def drip(connection: socket.socket, part: bytes) -> None:
    """Send a part again and again, for ten seconds.

    Raises:
        ConnectionError: the server ended the connection.
    """
    for _ in range(200):
        connection.sendall(part)
        time.sleep(0.05)


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        while connection.recv(1 << 16):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        pass
    return False


def post(port: int, content: bytes = b"{}", **headers: str) -> httpx.Response:
    return httpx.post(f"http://127.0.0.1:{port}/echo", content=content, headers=headers, timeout=PATIENCE)


@pytest.mark.parametrize("key", [None, "secret"])
@pytest.mark.parametrize("shape", ["one endless header", "many headers", "an endless path", "one packet"])
def test_headers_have_a_size(serve: Serve, key: str | None, shape: str) -> None:
    port = serve(key=key)
    part = {"many headers": b"a: b\r\n" * 2000}.get(shape, b"x" * 12000)
    head = b"GET /" if shape == "an endless path" else HEAD + b"a: "
    sent = 0
    with closing(connect(port, head)) as connection:
        if shape == "one packet":
            connection.sendall(part * 8 + b"\r\n\r\n")
        else:
            with suppress(ConnectionError):
                while sent < 100 << 20:
                    connection.sendall(part)
                    sent += len(part)
        assert rest(connection)[:12] in (b"HTTP/1.1 431", b"HTTP/1.1 400", b"")  # b"": it was closed while we sent
    assert sent < 16 << 20  # what the buffers of two sockets take
    assert post(port, authorization=f"Bearer {key}", more="x" * 30000).text == "2"


@pytest.mark.parametrize("part", [b"", b"\r\n", b"POST /ec", HEAD + b"a: b"])
def test_headers_have_a_time(serve: Serve, part: bytes) -> None:
    port = serve(HEADER_SECONDS=0.5)
    started = time.monotonic()
    with closing(connect(port, part)) as connection:
        assert rest(connection) == b""
    assert time.monotonic() - started < 10


def test_a_drip_of_headers_has_a_time(serve: Serve) -> None:
    port = serve(HEADER_SECONDS=0.5)
    with closing(connect(port, HEAD)) as connection, pytest.raises(ConnectionError):
        drip(connection, b"a: b\r\n")


def test_a_drip_after_the_answer_has_a_time(serve: Serve) -> None:
    port = serve(key="secret", HEADER_SECONDS=0.5)
    with closing(connect(port, HEAD + b"content-length: 1000000\r\n\r\n")) as connection:
        assert connection.recv(12) == b"HTTP/1.1 401"
        with pytest.raises(ConnectionError):
            drip(connection, b"x")


@pytest.mark.parametrize("part", [b"", HEAD, HEAD + b"content-length: 2\r\n\r\n{}"])
def test_idle_connections_make_room(serve: Serve, part: bytes) -> None:
    port = serve(limit=8)
    idle = [connect(port, part) for _ in range(40)]
    assert post(port).text == "2"
    wait_for(lambda: sum(is_open(connection) for connection in idle) <= 8, 10, "the end of idle connections")
    for connection in idle:
        connection.close()


def test_a_request_under_way_is_not_ended_for_a_new_connection(serve: Serve) -> None:
    port = serve(limit=4)
    with closing(connect(port, HEAD + b"content-length: 2\r\n\r\n{")) as slow:
        idle = [connect(port) for _ in range(20)]
        assert post(port).text == "2"
        slow.sendall(b"}")
        assert slow.recv(12) == b"HTTP/1.1 200"
    for connection in idle:
        connection.close()


@pytest.mark.parametrize("key", [None, "secret"])
def test_a_body_has_a_time(serve: Serve, key: str | None) -> None:
    port = serve(key=key, BODY_SECONDS=0.5)
    head = HEAD + f"authorization: Bearer {key}\r\n".encode()
    with closing(connect(port, head + b"content-length: 10\r\n\r\n{")) as connection:
        assert rest(connection).startswith(b"HTTP/1.1 408")


def test_bodies_on_their_way_keep_nobody_out(serve: Serve) -> None:
    """Many more than may be under way at once, and as large as all bodies may be."""
    port = serve(requests=4, MAX_ARRIVING=8, PATIENCE_SECONDS=0.1)
    half = HEAD + b"content-length: 1000000\r\n\r\n" + b"x" * 900_000
    slow = [connect(port, HEAD + b"content-length: 9\r\n\r\n{") for _ in range(40)]
    slow += [connect(port, half) for _ in range(16)]
    time.sleep(0.3)
    statuses = [post(port, b"x" * 500_000).status_code for _ in range(5)]
    assert statuses[-1] == 200, statuses
    assert statuses.count(200) >= 4, statuses
    for connection in slow:
        connection.close()


def test_a_client_that_does_not_read_has_a_time(serve: Serve) -> None:
    port = serve(STALL_SECONDS=0.5)
    with closing(connect(port, b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n")) as connection:
        time.sleep(1.5)
        assert len(rest(connection)) < BIG


def test_there_are_files_for_more_than_connections() -> None:
    assert 1 <= connection_limit() <= limits.MAX_CONNECTIONS
