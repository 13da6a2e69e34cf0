"""A relay holds connections while there is no server, and knows when it was last asked something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from server.deploy.tunnel import GoneError, Relay, Streams

SECONDS = 60.0


class Far:
    """A server that echoes, once it stands; an answer to `wait` comes when the gate opens."""

    def __init__(self) -> None:
        self.port: int | None = None
        self.gone = False
        self.gate = asyncio.Event()
        self._server: asyncio.AbstractServer | None = None

    async def stand(self) -> None:
        self._server = await asyncio.start_server(self._echo, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def connect(self) -> Streams:
        if self.gone:
            raise GoneError
        if self.port is None:
            raise ConnectionRefusedError
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while text := await reader.read(1000):
            if text == b"wait":
                await self.gate.wait()
            writer.write(text)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def relayed(far: Far) -> AsyncIterator[tuple[Relay, int]]:
    relay = Relay(far.connect)
    async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as server:
        yield relay, server.sockets[0].getsockname()[1]


async def ask(port: int, text: bytes) -> bytes:
    async with asyncio.timeout(SECONDS):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text)
        answer = await reader.read(1000)
        writer.close()
        return answer


def test_a_connection_waits_for_its_server() -> None:
    async def check() -> None:
        far = Far()
        async with relayed(far) as (_, port):
            asking = asyncio.create_task(ask(port, b"hello"))
            await asyncio.sleep(0.5)
            assert not asking.done()
            await far.stand()
            assert await asking == b"hello"

    asyncio.run(check())


def test_a_connection_to_a_server_that_never_comes_ends() -> None:
    async def check() -> None:
        far = Far()
        far.gone = True
        async with relayed(far) as (_, port):
            assert await ask(port, b"hello") == b""

    asyncio.run(check())


def test_an_answer_that_is_waited_for_is_no_idleness() -> None:
    async def check() -> None:
        far = Far()
        await far.stand()
        async with relayed(far) as (relay, port):
            asking = asyncio.create_task(ask(port, b"wait"))
            await asyncio.sleep(0.3)
            assert relay.idle_seconds() == 0.0
            far.gate.set()
            assert await asking == b"wait"
            await asyncio.sleep(0.3)
            assert relay.idle_seconds() > 0.0

    asyncio.run(check())


@pytest.mark.parametrize("text", [b"GET /health HTTP/1.1\r\n\r\n", b""])
def test_looking_whether_it_stands_is_no_use(text: bytes) -> None:
    async def check() -> None:
        far = Far()
        await far.stand()
        async with relayed(far) as (relay, port):
            before = relay.idle_seconds()
            await asyncio.sleep(0.05)
            if text:
                assert await ask(port, text) == text
            else:
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
            assert relay.idle_seconds() > before

    asyncio.run(check())
