"""A machine that `ssh` reaches: commands that run there, and files that go there."""

from __future__ import annotations

import hashlib
import io
import shlex
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from emoprobe.config.execution.deploy import Deploy

# Nothing here may wait for somebody to type, or for a machine that is gone.
OPTIONS = ("BatchMode=yes", "ConnectTimeout=20", "ServerAliveInterval=10", "ServerAliveCountMax=3", "ControlPath=none")
MAX_SECONDS = 120.0


class HostError(RuntimeError):
    """Something could not be done on the machine; the message says what, and what to do."""


@dataclass(frozen=True)
class Host:
    """A machine by the name that `ssh` knows it by, and the configuration file that it is looked up in."""

    name: str
    ssh_config: str | None = None

    @classmethod
    def of(cls, deploy: Deploy) -> Host:
        """The machine that the backend `ssh` names."""
        assert deploy.host is not None
        return cls(deploy.host, deploy.ssh_config)

    def ssh(self, *options: str) -> list[str]:
        """The command line up to the name of the machine."""
        config = ["-F", str(Path(self.ssh_config).expanduser().absolute())] if self.ssh_config else []
        return ["ssh", *config, *(part for option in OPTIONS for part in ("-o", option)), *options, "--", self.name]

    def run(self, *command: str, content: bytes = b"", seconds: float | None = MAX_SECONDS, shown: bool = False) -> str:
        """Run a shell command to its end and return what it printed.

        Args:
            command: its words; a single one is a script.
            content: its standard input, which is the place for what no list of processes may show.
            seconds: how long it may take; None: as long as it does.
            shown: whether it prints to the terminal instead.

        Raises:
            HostError: the machine cannot be reached, or the command failed or took too long.
        """
        line = command[0] if len(command) == 1 else shlex.join(command)
        try:
            done = subprocess.run(
                # Whatever shell logs in there, it can start this one.
                [*self.ssh("-T"), f"exec sh -c {shlex.quote(line)}"],
                input=content,
                stdout=None if shown else subprocess.PIPE,
                stderr=None if shown else subprocess.PIPE,
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise HostError(f"{self.name}: no answer within {seconds:g} s to: {line[:200]}") from None
        except OSError as error:
            raise HostError(f"ssh cannot be run ({error.strerror}); install OpenSSH's client") from None
        said = "" if shown else done.stderr.decode(errors="replace").strip()
        if done.returncode == 255:
            raise HostError(
                f"{self.name} cannot be reached: {said or 'ssh says no more'}. Check that "
                f"`{shlex.join(self.ssh())} true` works without asking for anything."
            )
        if done.returncode:
            raise HostError(f"{self.name}: exit status {done.returncode} of: {line[:200]}\n{said[-2000:]}")
        return "" if shown else done.stdout.decode(errors="replace")

    def write_secret(self, path: str, content: str) -> None:
        """Write a file that its owner alone may read; what it holds goes through standard input."""
        quoted = shlex.quote(path)
        self.run(f"umask 077 && rm -f {quoted} && cat > {quoted}", content=content.encode())

    def unpack(self, archive: bytes, folder: str) -> None:
        """Unpack a compressed tar archive into a folder, which is made."""
        quoted = shlex.quote(folder)
        self.run(f"mkdir -p {quoted} && tar -xzf - -C {quoted}", content=archive, seconds=None)

    def send_folder(self, source: Path, folder: str) -> None:
        """Copy the files of a folder, however large, as one stream; sub-folders stay here."""
        names = sorted(path.name for path in source.iterdir() if path.is_file())
        quoted = shlex.quote(folder)
        with subprocess.Popen(["tar", "-C", str(source), "-chf", "-", "--", *names], stdout=subprocess.PIPE) as tar:
            assert tar.stdout is not None
            receive = f"mkdir -p {quoted} && tar -xf - -C {quoted}"
            done = subprocess.run([*self.ssh("-T"), receive], stdin=tar.stdout, stderr=subprocess.PIPE)
        if done.returncode or tar.returncode:
            raise HostError(f"{self.name}: {source} could not be copied: {done.stderr.decode(errors='replace')[-500:]}")


def packed(root: Path, names: Sequence[str]) -> bytes:
    """Files and folders below a root as a compressed tar archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=6) as archive:
        for path in _files(root, names):
            archive.add(path, str(path.relative_to(root)))
    return stream.getvalue()


def digest(root: Path, names: Sequence[str]) -> str:
    """A hash of what `packed` packs."""
    found = hashlib.sha256()
    for path in _files(root, names):
        content = path.read_bytes()
        found.update(f"{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return found.hexdigest()


def _files(root: Path, names: Iterable[str]) -> Iterable[Path]:
    for name in names:
        path = root / name
        found = [path] if path.is_file() else sorted(path.rglob("*"))
        yield from (file for file in found if file.is_file() and "__pycache__" not in file.parts)
