"""Read along in the logs of a deployment."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

from emoprobe.config.execution.deploy import Deploy
from server.deploy.deployment import DEPLOYED, Deployment, place_of
from server.deploy.host import Host, HostError

AGAIN_SECONDS = 5.0


def monitor(settings: Deploy, root: Path = DEPLOYED, *, lines: int = 20, once: bool = False) -> None:
    """Print the end of the logs of keeper and servers, then what is added to them, until interrupted.

    Args:
        settings: the section `deploy`.
        root: the folder of the records.
        lines: how many lines of each log to begin with.
        once: end after these.

    Raises:
        HostError: nothing is deployed.
    """
    found = Deployment.read(place_of(settings, root))
    if found is None or found.folder is None:
        raise HostError("nothing is deployed from here: run make deploy")
    host = Host(found.host, found.ssh_config)
    while True:
        # By name, as a server that is started again goes on in the same file.
        follow = "" if once else "-F"
        command = f"cd {shlex.quote(f'{found.folder}/logs')} && exec tail -n {lines} {follow} *.log"
        # With a terminal there, tail ends when this end goes away.
        done = subprocess.run([*host.ssh("-T" if once else "-tt"), f"exec sh -c {shlex.quote(command)}"])
        if once or done.returncode != 255:
            return
        lines = 0
        time.sleep(AGAIN_SECONDS)
