"""A real OpenSSH server of this user's on a port of its own, with a key of its own."""

from __future__ import annotations

import getpass
import shutil
import subprocess
from pathlib import Path

from tests.ports import free_port
from tests.workspace import wait_for


class UnavailableError(Exception):
    """It cannot be started here; the message says why."""


class Sshd:
    """The server, and the client's configuration file for it, in which it is called `gpu`.

    Raises:
        UnavailableError: OpenSSH is not installed, or its server does not start.
    """

    name = "gpu"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        program = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin")
        if program is None or shutil.which("ssh-keygen") is None or shutil.which("ssh") is None:
            raise UnavailableError("OpenSSH's client and server are not installed (apt-get install openssh-server)")
        self._program = program
        folder.chmod(0o700)
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)], check=True
            )
        self.port = free_port()
        (folder / "authorized").write_text((folder / "user.pub").read_text())
        kind, key, _ = (folder / "host.pub").read_text().split()
        (folder / "known").write_text(f"[127.0.0.1]:{self.port} {kind} {key}\n")
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile {folder}/sshd.pid\n"
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\nUsePAM no\n"
            "KbdInteractiveAuthentication no\nMaxStartups 100\nPermitRootLogin prohibit-password\n"
        )
        self.client_config = folder / "ssh_config"
        self.client_config.write_text(
            f"Host {self.name}\n  HostName 127.0.0.1\n  Port {self.port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {folder}/user\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
            "  StrictHostKeyChecking yes\n"
        )
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start the server."""
        # Where it is started by root, it wants this folder for the part of it that has no rights.
        if getpass.getuser() == "root":
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        log = open(self._folder / "log", "ab")  # noqa: SIM115 (the process keeps it)
        self.process = subprocess.Popen(
            [self._program, "-D", "-e", "-f", str(self._folder / "sshd_config")], stdout=log, stderr=log
        )
        try:
            wait_for(self._answers, 60, "an answer of sshd")
        except TimeoutError:
            self.stop()
            raise UnavailableError((self._folder / "log").read_text()[-1000:]) from None

    def stop(self) -> None:
        """End the server; sessions that are open go on."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait()

    def _answers(self) -> bool:
        command = ["ssh", "-F", str(self.client_config), "-o", "BatchMode=yes", self.name, "true"]
        assert self.process is not None
        if self.process.poll() is not None:
            raise TimeoutError
        return subprocess.run(command, capture_output=True).returncode == 0
