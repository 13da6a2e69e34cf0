"""What the pool and its SLURM jobs tell each other: files in a folder on the file system that they share.

    {results}/.slurm/{pool}/pool.json       whose they are: host, process, the name of the jobs
                            lease           touched every few seconds while the pool lives
                            {job}/job.json, key                                     for the job, see `server.supervisor`
                            {job}/address.json, leaving.json, ended.json            from the job

Only their user can enter the folders, or read the files.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emoprobe.config.execution.slurm import SlurmShape
from server import supervisor
from server.supervisor import ADDRESS, JOB, KEY, LEASE

FOLDER = ".slurm"
POOL = "pool.json"
RENEW_SECONDS = 10.0
LEASE_SECONDS = 120.0


@dataclass(frozen=True)
class JobAddress:
    """Address of a job's server, as the job wrote it; verified by the nonce.

    `hardware` is what it runs on, as `emoprobe.models.hardware` describes it.
    """

    host: str
    port: int
    nonce: str
    node: str
    hardware: str

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{self.host}:{self.port}"


class JobFolder:
    """The folder of one job.

    Args:
        path: where it lies, in the folder of the pool.
        job: the content of `job.json`.
        key: the server's API key.
    """

    def __init__(self, path: Path, job: dict[str, Any], key: str) -> None:
        self.path, self._nonce = path, job["nonce"]
        path.mkdir(mode=0o700)
        private_file(path / KEY, key)
        private_file(path / JOB, json.dumps(job))

    def address(self) -> JobAddress | None:
        """Return the server's address; None until the job wrote it. A file with another nonce is ignored."""
        found = self.note(ADDRESS)
        try:
            address = JobAddress(**found) if found is not None else None
        except TypeError:
            return None
        return address if address is not None and address.nonce == self._nonce else None

    def note(self, name: str) -> dict[str, Any] | None:
        """Return the content of one of the job's files; None where there is none."""
        try:
            found = json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def remove(self) -> None:
        """Take the folder away, which ends the job. The file that it looks for goes first."""
        (self.path / JOB).unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


class PoolFolder:
    """The folder of this pool below the results.

    Args:
        results: the folder with the experiments' folders.
        name: what the pool's jobs are called.
    """

    def __init__(self, results: Path, name: str) -> None:
        root = results / FOLDER
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = root / name
        self.path.mkdir(mode=0o700)
        owner = {"name": name, "host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
        private_file(self.path / LEASE, "")  # first, as without it others would take this pool for dead
        private_file(self.path / POOL, json.dumps(owner))

    def renew(self) -> None:
        """Touch the lease, so that the jobs go on. That takes no room, should the disk be full."""
        os.utime(self.path / LEASE)

    def remove(self) -> None:
        """Take the lease away, and everything else: jobs that are left end themselves."""
        (self.path / LEASE).unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def leftovers(self) -> list[tuple[str, Path]]:
        """Names of the jobs of pools that are dead, each with the pool's folder."""
        found = []
        for path in self.path.parent.iterdir():
            try:
                owner = json.loads((path / POOL).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if path != self.path and not self._lives(owner, path):
                found.append((str(owner["name"]), path))
        return found

    def _lives(self, owner: dict[str, Any], path: Path) -> bool:
        if owner["host"] == socket.gethostname():
            return _started(int(owner["pid"])) == str(owner["started"])
        # Compared with a file of this moment, as the clocks of two machines and of the file system may differ.
        try:
            with tempfile.NamedTemporaryFile(dir=self.path) as now:
                return os.fstat(now.fileno()).st_mtime - (path / LEASE).stat().st_mtime < 2 * LEASE_SECONDS
        except FileNotFoundError:
            return False
        except OSError:  # the disk is full, or has a bad moment: its jobs are left alone
            return True


def private_file(path: Path, text: str) -> None:
    """Write a file that its user alone can read, and that appears whole."""
    temporary = path.with_name(f".{path.name}.new")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _started(process: int) -> str:
    """When a process started, as the kernel counts; empty where there is none, also no zombie."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@dataclass(frozen=True)
class JobCommand:
    """Command of a job: arguments, with `{host}` and `{port}` filled in on the node, and the whole environment.

    `cache` is the folder for what servers compile; `batch_invariant` is added to the environment where all GPUs of the
    job have batch invariance.
    """

    line: list[str]
    env: dict[str, str]
    cache: Path
    batch_invariant: dict[str, str] = field(default_factory=dict)


def job_file(command: JobCommand, shape: SlurmShape, lease: float) -> dict[str, Any]:
    """The content of `job.json`, with a new nonce.

    Args:
        command: what the job starts.
        shape: what it has asked for.
        lease: seconds without a sign of the pool after which it ends itself.
    """
    return {
        "command": command.line,
        "env": command.env,
        "batch_invariant": command.batch_invariant,
        "cache": str(command.cache),
        "cpus": shape.cpus,
        "gpus": shape.gpus,
        "nonce": secrets.token_hex(16),
        "pool_host": socket.gethostname(),
        "lease_seconds": lease,
    }


def job_script(folder: Path) -> str:
    """The script of the job whose folder this is."""
    return f"#!/bin/sh\nexec {shlex.join([sys.executable, '-I', '-S', supervisor.__file__, str(folder)])}\n"
