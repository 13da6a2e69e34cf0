"""A machine that `ssh` reaches, and the folder of a deployment on it."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shlex
import subprocess
import tarfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from emoprobe.config.execution.deploy import Deploy
from emoprobe.models.directory import directory_sha256
from server.deploy.deployment import ENVIRONMENT, KEY, ORDER, PROCESS, STATUS, Order, Status
from server.pool.launch import CODE

# Nothing here may wait for somebody to type, or for a machine that is gone.
OPTIONS = ("BatchMode=yes", "ConnectTimeout=20", "ServerAliveInterval=10", "ServerAliveCountMax=3", "ControlPath=none")
MAX_SECONDS = 120.0
# Printed before a command's output: what the shell that logs in prints, such as a greeting, is none of it.
BEGIN = "-- emoprobe begins --"


class HostError(RuntimeError):
    """Something could not be done on the machine; the message says what, and what to do."""


class TakenError(HostError):
    """A folder on a machine that is not this deployment's."""


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
        begun = line if shown else f"echo '{BEGIN}'\n{line}"
        try:
            done = subprocess.run(
                # Whatever shell logs in there, it can start this one.
                [*self.ssh("-T"), f"exec sh -c {shlex.quote(begun)}"],
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
        return "" if shown else done.stdout.decode(errors="replace").partition(f"{BEGIN}\n")[2]

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
    hashed = hashlib.sha256()
    for path in _files(root, names):
        content = path.read_bytes()
        hashed.update(f"{path.relative_to(root)}\0{len(content)}\0".encode() + content)
    return hashed.hexdigest()


def _files(root: Path, names: Iterable[str]) -> Iterable[Path]:
    for name in names:
        path = root / name
        paths = [path] if path.is_file() else sorted(path.rglob("*"))
        yield from (file for file in paths if file.is_file() and "__pycache__" not in file.parts)


# What a machine needs to run the servers: the library, the servers, and what installs their environment.
SENT = ("emoprobe", "server", "envs", "Makefile", "pyproject.toml", "README.md", "LICENSE")
# Says whose the folder is. Nothing is put into a folder that has others' files and not this one, or removed from it.
MARK = ".emoprobe-deployment"
FREE = "free"
KEEPER_LOG = "logs/keeper.log"
LOOK_SECONDS = 2.0


@dataclass(frozen=True)
class Site:
    """The folder of the deployment `id`, by its absolute path on the machine."""

    host: Host
    folder: str
    id: str

    @classmethod
    def claimed(cls, host: Host, folder: str, number: str) -> Site:
        """Make the folder, for this deployment alone.

        Raises:
            TakenError: it is another's, or holds something else.
            HostError: the machine cannot be reached.
        """
        quoted, owner = shlex.quote(folder), f"{number} {platform.node()}:{Path.cwd()}"
        script = f"""
            umask 077
            mkdir -p {quoted} && cd {quoted} || exit
            if [ -e {MARK} ]; then
                [ "$(cat {MARK})" != {FREE} ] || cat > {MARK}
            else
                [ -z "$(ls -A)" ] || {{ echo foreign; exit; }}
                cat > {MARK}
            fi
            cat {MARK}; pwd -P
        """
        mark, _, path = host.run(script, content=f"{owner}\n".encode()).strip().partition("\n")
        if mark == "foreign":
            raise TakenError(f"{host.name}: the folder {folder} has other files; choose another deploy.folder")
        if not mark.startswith(f"{number} "):
            where = mark.partition(" ")[2]
            raise TakenError(
                f"{host.name}: the folder {folder} belongs to a deployment from {where}; run `make undeploy` there, or "
                "choose another deploy.folder"
            )
        return cls(host, path, number)

    def path(self, *parts: str) -> str:
        """A path below the folder, quoted for a shell."""
        return shlex.quote("/".join([self.folder, *parts]))

    def send_code(self) -> None:
        """Send the code; an environment that was installed stays."""
        self.host.run(f"mkdir -p {self.path('code')} && cd {self.path('code')} && rm -rf emoprobe server envs")
        self.host.unpack(packed(CODE, SENT), f"{self.folder}/code")

    def install(self) -> str:
        """Install the lock that fits the machine, as far as it is not; return the interpreter.

        Each hardware has an environment: machines with and without a GPU may share the folder.
        """
        make = f"env -u VENV -u HARDWARE make -C {self.path('code')}"
        self.host.run(f'PATH="$HOME/.local/bin:$PATH" PIP_NO_CACHE_DIR=1 {make} env', seconds=None, shown=True)
        return self.host.run(f"{make} -s --no-print-directory interpreter").strip()

    def send_model(self, source: Path, name: str) -> None:
        """Send the files of a model's directory, unless they are there."""
        there, part = self.path("models", name), self.path("models", f"{name}.part")
        # The folder is named by its content and gets its name last: what is there is whole.
        if self.host.run(f"mkdir -p {self.path('models')}; test -d {there} && echo there || true").strip():
            return
        self.host.run(f"rm -rf {part}")
        self.host.send_folder(source, f"{self.folder}/models/{name}.part")
        self.host.run(f"mv {part} {there}")

    def start(self, order: Order, key: str, environment: dict[str, str], python: str) -> None:
        """Give an order to a new keeper, which outlives this session. No secret is on a command line."""
        self.host.run(f"umask 077 && mkdir -p {self.path('run')} {self.path('logs')} && rm -f {self.path('run')}/*")
        self.host.write_secret(f"{self.folder}/run/{KEY}", key)
        self.host.write_secret(f"{self.folder}/run/{ENVIRONMENT}", json.dumps(environment))
        self.host.write_secret(f"{self.folder}/run/{ORDER}", order.model_dump_json())
        self.host.run(
            f"cd {self.path('code')} || exit 1\n"
            f"PYTHONPATH={self.path('code')} setsid nohup {shlex.quote(python)} -m server.deploy.keeper {self.path()} "
            f">{self.path(KEEPER_LOG)} 2>&1 </dev/null &"
        )

    def status(self) -> Status | None:
        """Return the last status of the keeper; None where there is none."""
        text = self.host.run(f"cat {self.path('run', STATUS)} 2>/dev/null || true")
        return Status.model_validate_json(text) if text.strip() else None

    def keeper_lives(self) -> bool:
        """Return whether the process named in the keeper's file is running."""
        return self.host.run(f"{self._is_there()}\nis_there && echo yes || true").strip() == "yes"

    def end_keeper(self) -> None:
        """End the keeper, and nothing that only has its number; its servers end with it."""
        self.host.run(
            f"""
            {self._is_there()}
            is_there || exit 0
            for signal in TERM KILL; do
                is_there && kill -$signal "$number"
                for _ in $(seq 300); do is_there || exit 0; sleep 0.1; done
            done
            exit 1
            """
        )

    def _is_there(self) -> str:
        """A shell function that tells whether the keeper lives: its number, and when it was started."""
        file = self.path("run", PROCESS)
        return (
            f"is_there() {{ read -r number started < {file} && "
            '[ "$(cut -d" " -f22 "/proc/$number/stat")" = "$started" ]; } 2>/dev/null'
        )

    def wait(self, order: Order, out: TextIO) -> Status:
        """Wait until every server stands, and tell what they do meanwhile.

        Raises:
            HostError: they ended, or one has failed; with the end of its log.
        """
        said = ""
        looked = 0
        while True:
            status = self.status()
            looked += 1
            if status is not None and status.digest == order.digest:
                words = "; ".join(f"{server.name} {server.phase}" for server in status.servers) or status.phase
                # Seconds count on; a line for each would be too many.
                if (shape := "".join(letter for letter in words if not letter.isdigit())) != said:
                    print(f"{self.host.name}: {words}", file=out)
                    said = shape
                failed = [server.error or server.name for server in status.servers if server.state == "failed"]
                if failed or status.ended is not None:
                    raise HostError("\n".join([f"{self.host.name}: {status.ended or 'a server has failed'}", *failed]))
                if status.servers and all(server.state == "live" for server in status.servers):
                    return status
            if looked % 5 == 0 and not self.keeper_lives():
                log = self.host.run(f"tail -n 20 {self.path(KEEPER_LOG)} 2>/dev/null || true")
                raise HostError(f"{self.host.name}: the keeper of the servers ended; the end of its log:\n{log}")
            time.sleep(LOOK_SECONDS)

    def remove(self, keep: bool) -> None:
        """End the servers and remove the folder; with `keep`, code, environment and models stay for the next time."""
        self.end_keeper()
        used = " ".join(self.path(name) for name in ("run", "activations", "logs"))
        what = f"rm -rf -- {used} && echo {FREE} > {self.path(MARK)}" if keep else f"rm -rf -- {self.path()}"
        # Only what this deployment has marked as its own.
        ours = f'[ "$(cut -d" " -f1 {self.path(MARK)} 2>/dev/null)" = {self.id} ]'
        self.host.run(f"{ours} || exit 0; {what}", seconds=None)


def model_folder(source: str) -> str:
    """Return the name of a local model's directory on the host, from its content."""
    return directory_sha256(Path(source).expanduser())[:16]
