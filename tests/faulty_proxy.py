"""An HTTP proxy before an object store that counts requests and spoils some of them."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["unavailable", "forbidden", "slow", "reset upload", "reset download", "flip upload", "flip download"]
BODIES = {
    "unavailable": (503, "Slow Down", "SlowDown", "Please reduce your request rate."),
    "forbidden": (403, "Forbidden", "ExpiredToken", "The provided token has expired."),
}


@dataclass
class Fault:
    """What happens to the next `times` requests of a method whose path contains `match`."""

    kind: Kind
    times: int = 1
    method: str = ""
    match: str = ""
    least: int = 0  # bytes of the body, sent or received, that a request must have for a fault of its body


@dataclass
class Request:
    """One request as the proxy saw it."""

    method: str
    path: str
    sent: int = 0
    received: int = 0


@dataclass
class FaultyProxy:
    """Listens on the loopback interface, in a thread of this process."""

    upstream: int
    port: int = 0
    seconds: float = 1.0  # how long a slow answer takes to begin
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0

    def __post_init__(self) -> None:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        started.wait(30)

    def stop(self) -> None:
        """Stop listening."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    def reset(self) -> None:
        """Forget what was counted, and all faults."""
        self.faults, self.requests, self.most_in_flight = [], [], 0

    @contextmanager
    def counting(self) -> Iterator[Counter[str]]:
        """Counts the requests of a block by their method, once it has ended; no fault outlives it."""
        self.requests, self.most_in_flight = [], 0
        found: Counter[str] = Counter()
        yield found
        found.update(request.method for request in self.requests)
        self.faults = []

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 20))
        self.port = int(server.sockets[0].getsockname()[1])
        started.set()
        self._loop.run_forever()
        server.close()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, and one to the store for all its requests."""
        store: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if store is None:
                    store = await asyncio.open_connection("127.0.0.1", self.upstream, limit=1 << 20)
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    await self._pass_on(head, reader, writer, *store)
                finally:
                    self.in_flight -= 1
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            for end in [writer, *(store[1:] if store else ())]:
                with suppress(OSError, RuntimeError):
                    end.close()

    async def _pass_on(
        self,
        head: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        store_reader: asyncio.StreamReader,
        store_writer: asyncio.StreamWriter,
    ) -> None:
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        length = _length(head)
        request = Request(method, path, sent=length)
        self.requests.append(request)
        fault = self._fault(method, path, length)
        if fault == "slow":
            await asyncio.sleep(self.seconds)
        if fault == "reset upload":
            await reader.readexactly(length // 2)
            _reset(writer)
        body = await reader.readexactly(length)
        if fault in BODIES:
            status, reason, code, message = BODIES[fault]
            text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
            answer = (
                f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n\r\n"
            )
            writer.write(answer.encode() + (b"" if method == "HEAD" else text))
            await writer.drain()
            return
        if fault == "flip upload":
            body = _flipped(body)
        store_writer.write(head + body)
        await store_writer.drain()
        head = await store_reader.readuntil(b"\r\n\r\n")
        while head.startswith(b"HTTP/1.1 100"):
            head = await store_reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        bodiless = method == "HEAD" or status in (204, 304)
        body = b"" if bodiless else await _body(head, store_reader)
        request.received = len(body)
        fault = self._fault(method, path, len(body), download=True) if status < 300 and body else None
        if fault == "flip download":
            body = _flipped(body)
        if b"chunked" in head.lower():
            head = _with_length(head, len(body))
        if fault == "reset download":
            writer.write(head + body[: len(body) // 2])
            await writer.drain()
            _reset(writer)
        writer.write(head + body)
        await writer.drain()

    def _fault(self, method: str, path: str, length: int, download: bool = False) -> str | None:
        """What happens to a request, or to its answer."""
        for fault in self.faults:
            if fault.kind.endswith("download") is not download or fault.times <= 0:
                continue
            of_body = fault.kind.startswith(("reset", "flip"))
            if method.startswith(fault.method) and fault.match in path and length >= max(fault.least, int(of_body)):
                fault.times -= 1
                return fault.kind
        return None


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    if b"transfer-encoding: chunked" not in head.lower():
        return await reader.readexactly(_length(head))
    parts = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append(await reader.readexactly(size))
        await reader.readline()
    await reader.readline()
    return b"".join(parts)


def _with_length(head: bytes, length: int) -> bytes:
    lines = [line for line in head.split(b"\r\n") if line and not line.lower().startswith(b"transfer-encoding")]
    return b"\r\n".join([*lines, b"Content-Length: %d" % length, b"", b""])


def _flipped(body: bytes) -> bytes:
    """The same bytes but for one bit in the middle."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a crashed peer does.

    Raises:
        ConnectionResetError: always, so that nothing more is done with the connection.
    """
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    raise ConnectionResetError
