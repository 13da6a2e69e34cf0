"""A pool that does each job at once, or fails it, or goes away: for tests of those who ask."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from server.pool.address import PoolAddress
from server.pool.protocol import JOBS, Job, decode


class InstantPool:
    """Serves in a thread of its own; `asked` counts how often each job was asked for.

    Args:
        address: the file in which it publishes where it listens.
        do: makes a job's files; the text that it returns is why the job failed, None stands for no answer at all.
    """

    def __init__(self, address: Path, do: Callable[[Job, int], str | None]) -> None:
        self.asked: Counter[Job] = Counter()
        self.connections = 0
        self._path, self._do = address, do
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait()

    def drop(self) -> None:
        """End every connection without an answer to what is being done."""
        self._loop.call_soon_threadsafe(self._drop)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def _drop(self) -> None:
        for writer in list(self._connections):
            writer.transport.abort()

    async def _serve(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        address = PoolAddress.new(server.sockets[0].getsockname()[1])
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        address.write(self._path)
        self._ready.set()
        await self._ended.wait()
        server.close()
        self._drop()
        # Each ends by itself, as its connection is gone: no task is left to the end of the loop.
        await asyncio.gather(*(task for task in self._connections.values() if task is not None))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = os.fsdecode(await reader.readline())
        if not first:  # somebody looked whether it listens
            writer.close()
            return
        assert first.rstrip("\n").partition("\t")[2] == JOBS
        self.connections += 1
        self._connections[writer] = asyncio.current_task()
        try:
            while line := await reader.readline():
                number, _, job = decode(line)
                self.asked[job] += 1
                answer = self._do(job, self.asked[job])
                if answer is not None and not writer.is_closing():
                    writer.write(f"{json.dumps([number, answer])}\n".encode())
        except ConnectionError:
            pass
        finally:
            del self._connections[writer]
