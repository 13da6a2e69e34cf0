"""Lead ports of this machine to the sockets of a deployment: python -m server.deploy.tunnel FOLDER.

`ssh` carries the connections. Where it ends, because the network went away or somebody killed it, it is started again,
and connections that come meanwhile wait.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import shutil
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from server.deploy import processes
from server.deploy.deployment import TUNNEL, Deployment
from server.deploy.host import Host
from server.orphan import end_with_parent
from server.pool.connections import allow_open_files

CHUNK = 1 << 16
RETRY_SECONDS = 0.2
# Whoever asks for this wants to know whether the server stands; it is no request.
HEALTH = b"GET /health"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class GoneError(Exception):
    """Nothing will ever stand there again."""


class Relay:
    """Serves connections.

    Args:
        connect: opens a connection to the server, or raises OSError while there is none, GoneError where there will be
            none.
    """

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self._connect = connect
        self._used = time.monotonic()
        self._waiting = 0

    def idle_seconds(self) -> float:
        """Seconds since the last request or answer; 0 while an answer is waited for."""
        return 0.0 if self._waiting else time.monotonic() - self._used

    def touch(self) -> None:
        """Count this moment as used."""
        self._used = time.monotonic()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on, both ways, until either side ends it."""
        try:
            with contextlib.suppress(OSError, GoneError):
                first = await reader.read(CHUNK)
                if first:
                    await self._pass_on(first, reader, writer, counts=not first.startswith(HEALTH))
        finally:
            writer.close()

    async def _pass_on(
        self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, counts: bool
    ) -> None:
        answered = True

        def note(asked: bool) -> None:
            """Keep when something went by, and whether an answer to it is due."""
            nonlocal answered
            if counts:
                self._used = time.monotonic()
                self._waiting += int(answered) - int(not asked)
                answered = not asked

        note(asked=True)
        try:
            there_reader, there_writer = await self._connected(reader)
            there_writer.write(first)
            directions = [
                asyncio.create_task(_copy(reader, there_writer, lambda: note(asked=True))),
                asyncio.create_task(_copy(there_reader, writer, lambda: note(asked=False))),
            ]
            try:
                await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for direction in directions:
                    direction.cancel()
                await asyncio.gather(*directions, return_exceptions=True)
                there_writer.close()
        finally:
            note(asked=False)

    async def _connected(self, reader: asyncio.StreamReader) -> Streams:
        """A connection to the server, as soon as there is one.

        Raises:
            GoneError: there will be none, or the client has left.
        """
        while True:
            try:
                return await self._connect()
            except OSError:
                if reader.at_eof():
                    raise GoneError from None
                await asyncio.sleep(RETRY_SECONDS)


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, note: Callable[[], None]) -> None:
    while chunk := await source.read(CHUNK):
        note()
        target.write(chunk)
        await target.drain()


log = logging.getLogger(__name__)

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 15.0
STEADY_SECONDS = 60.0


async def lead(deployment: Deployment, sockets: Path) -> None:
    """Serve the ports of a deployment until cancelled.

    Args:
        deployment: where the servers are.
        sockets: a folder, with a short path, for this end of what `ssh` forwards.
    """
    forwards = []
    async with contextlib.AsyncExitStack() as stack:
        for number, server in enumerate(deployment.servers):
            near = sockets / str(number)
            forwards += ["-L", f"{near}:{server.socket}"]
            relay = Relay(_connect_to(near))
            await stack.enter_async_context(await asyncio.start_server(relay.serve, "127.0.0.1", server.port))
        host = Host(deployment.host, deployment.ssh_config)
        options = ["ExitOnForwardFailure=yes", "StreamLocalBindUnlink=yes"]
        await _keep_up(host.ssh("-N", "-T", *(part for option in options for part in ("-o", option)), *forwards))


async def _keep_up(command: list[str]) -> None:
    """Run a command, and again whenever it ends: soon at first, then less and less often."""
    pause = FIRST_PAUSE
    while True:
        started = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.DEVNULL, preexec_fn=partial(end_with_parent, signal.SIGTERM)
        )
        log.info("ssh runs as process %d", process.pid)
        try:
            status = await process.wait()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        pause = FIRST_PAUSE if time.monotonic() - started > STEADY_SECONDS else min(2 * pause, LONGEST_PAUSE)
        log.warning("ssh ended (status %d), again in %.1f s", status, pause)
        await asyncio.sleep(pause)


def _connect_to(path: Path) -> Callable[[], Awaitable[Streams]]:
    async def connect() -> Streams:
        return await asyncio.open_unix_connection(str(path))

    return connect


async def run(deployment: Deployment) -> None:
    """Serve until asked to end."""
    sockets = Path(tempfile.mkdtemp(prefix="emoprobe-"))
    leading = asyncio.ensure_future(lead(deployment, sockets))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leading.cancel)
    try:
        await leading
    except asyncio.CancelledError:
        log.info("ended as it was told to")
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder with the record of the deployment")
    folder = parser.parse_args().folder
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    deployment = Deployment.read(folder)
    if deployment is None:
        parser.exit(1, f"{folder} holds no deployment\n")
    processes.write_own(folder / TUNNEL)
    allow_open_files()  # of ssh as well
    asyncio.run(run(deployment))


if __name__ == "__main__":
    main()
