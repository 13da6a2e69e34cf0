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
from server.deploy.relay import Relay, Streams
from server.orphan import end_with_parent

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
    asyncio.run(run(deployment))


if __name__ == "__main__":
    main()
