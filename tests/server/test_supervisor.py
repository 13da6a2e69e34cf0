"""What a SLURM job runs, without SLURM: it starts a server, tells the pool of it, and never outlives the pool's wish."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emoprobe.models.hardware import described
from server import supervisor
from server.guard import NONCE_VARIABLE
from tests.conftest import PATIENCE
from tests.workspace import wait_for

SERVER = """
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
json.dump([dict(os.environ), sys.argv[1:]], open(sys.argv[1] + ".new", "w"))
os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(float(sys.argv[2]))
sys.exit(3)
"""


class Job:
    """The folder of a job, and its supervisor."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder / "pool/job", folder / "started"
        self.folder.mkdir(parents=True)
        self.lease = self.folder.parent / supervisor.LEASE
        self.lease.touch()
        (self.folder / supervisor.KEY).write_text("the key")
        self.environment: dict[str, str] = {}
        self.process: subprocess.Popen[str]

    def start(self, seconds: float = 1000.0, lease_seconds: float = 1000.0, **changes: Any) -> None:
        command = [sys.executable, "-c", SERVER, str(self.started), str(seconds), "{host}", "{port}"]
        job = {
            "command": command, "env": {"PATH": os.environ["PATH"], "LISTED": "yes"}, "cache": "/cache", "cpus": 1,
            "gpus": 0, "batch_invariant": {"INVARIANT": "1"}, "nonce": "the nonce", "pool_host": "localhost", "lease_seconds": lease_seconds, **changes,
        }  # fmt: skip
        (self.folder / supervisor.JOB).write_text(json.dumps(job))
        line = [sys.executable, "-I", "-S", supervisor.__file__, str(self.folder)]
        environment = {**os.environ, "UNLISTED": "secret", "SLURM_JOB_ID": "17", **self.environment}
        self.process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True)

    def wait_for_server(self) -> tuple[dict[str, str], list[str]]:
        """The server's environment and arguments."""
        wait_for(self.started.exists, PATIENCE, "the server")
        environment, arguments = json.loads(self.started.read_text())
        return environment, arguments

    def note(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def end(self) -> tuple[int, str]:
        """Wait for the supervisor; its exit status and what it printed."""
        output, _ = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path)
    yield made
    if hasattr(made, "process") and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def server_of(environment: dict[str, str]) -> Callable[[], bool]:
    """Whether the server of a supervisor is gone; it is told the number of its parent."""
    parent = environment["EMOPROBE_PARENT"]

    def gone() -> bool:
        for entry in Path("/proc").glob("[0-9]*/environ"):
            try:
                if f"EMOPROBE_PARENT={parent}\0".encode() in entry.read_bytes():
                    return False
            except OSError:
                continue
        return True

    return gone


def test_the_server_is_given_what_is_listed_and_the_pool_is_told_where_it_listens(job: Job) -> None:
    job.start()
    environment, (_, _, host, port) = job.wait_for_server()
    assert environment["EMOPROBE_API_KEY"] == environment["VLLM_API_KEY"] == "the key"
    assert (environment[NONCE_VARIABLE], environment["SLURM_JOB_ID"], environment["LISTED"]) == (
        "the nonce",
        "17",
        "yes",
    )
    assert "UNLISTED" not in environment
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["VLLM_CACHE_ROOT"] == f"/cache/{supervisor.fingerprint()}/vllm"
    assert not (job.folder / supervisor.KEY).exists()
    wait_for((job.folder / supervisor.ADDRESS).exists, PATIENCE, "the address")
    address = job.note(supervisor.ADDRESS)
    assert (address["host"], str(address["port"]), address["nonce"]) == (host, port, "the nonce")
    assert address["hardware"] == described([])
    assert "INVARIANT" not in environment
    assert (job.folder / supervisor.ADDRESS).stat().st_mode & 0o077 == 0


def with_torch(folder: Path, cuda: str | None) -> dict[str, str]:
    """The environment of a server whose PyTorch is built for a version of CUDA, or for CPUs."""
    (folder / "torch").mkdir()
    (folder / "torch/__init__.py").touch()
    (folder / "torch/version.py").write_text(f"cuda = {cuda!r}\n")
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(folder)}


def test_a_server_with_a_gpu_is_not_started_from_an_environment_for_cpus(job: Job, tmp_path: Path) -> None:
    job.start(gpus=1, env=with_torch(tmp_path, None))
    status, said = job.end()
    assert status == 1
    assert not job.started.exists()
    assert not (job.folder / supervisor.ADDRESS).exists()
    ended = job.note(supervisor.ENDED)
    assert "PyTorch for CPUs" in ended["reason"]
    assert "make HARDWARE=cuda env" in ended["reason"]
    assert ended["reason"] in said


OLD, NEW = "0, GPU-a1b2, Tesla T4, 15360, 7.5", "1, GPU-c3d4, NVIDIA H100 80GB HBM3, 81559, 9.0"


@pytest.mark.parametrize(
    ("gpus", "hardware", "invariant"),
    [
        ("0", "Tesla T4 (compute capability 7.5)", False),
        ("GPU-c3d4", "NVIDIA H100 80GB HBM3 (compute capability 9.0)", True),
        ("0,1", "Tesla T4 (compute capability 7.5) + NVIDIA H100 80GB HBM3 (compute capability 9.0)", False),
    ],
)
def test_the_gpus_of_a_node_are_told_and_decide_about_batch_invariance(
    job: Job, tmp_path: Path, gpus: str, hardware: str, invariant: bool
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\nprintf '%s\\n' '{OLD}' '{NEW}'\n")
    driver.chmod(0o755)
    job.environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": gpus}
    job.start(gpus=1, env=with_torch(tmp_path, "13.0"))
    environment, _ = job.wait_for_server()
    assert environment.get("INVARIANT") == ("1" if invariant else None)
    assert environment["CUDA_VISIBLE_DEVICES"] == gpus
    wait_for((job.folder / supervisor.ADDRESS).exists, PATIENCE, "the address")
    assert job.note(supervisor.ADDRESS)["hardware"] == hardware


def test_a_server_that_ends_is_told_with_its_status(job: Job) -> None:
    job.start(seconds=0.0)
    status, output = job.end()
    assert (status, job.note(supervisor.ENDED)) == (3, {"status": 3})
    assert "ended with status 3" in output


@pytest.mark.parametrize("how", ["job", "folder", "lease", "stale"])
def test_it_ends_with_the_pools_wish(job: Job, how: str) -> None:
    job.start(lease_seconds=1.0 if how == "stale" else 1000.0)
    environment, _ = job.wait_for_server()
    if how == "job":
        (job.folder / supervisor.JOB).unlink()
    elif how == "folder":
        for path in job.folder.iterdir():
            path.unlink()
        job.folder.rmdir()
    elif how == "lease":
        job.lease.unlink()
    status, output = job.end()
    assert status == 0
    assert "the pool has" in output
    assert server_of(environment)()


def test_a_lease_that_is_renewed_does_not_end(job: Job) -> None:
    job.start(lease_seconds=3.0)
    job.wait_for_server()
    lease = supervisor.Lease(job.folder, 3.0)
    for number in range(8):
        os.utime(job.lease, (number, number))  # the date itself means nothing
        assert lease.why_over() == ""
        with pytest.raises(subprocess.TimeoutExpired):
            job.process.wait(0.6)


def test_slurms_warning_is_passed_on_and_the_server_goes_on_until_the_pool_lets_it_go(job: Job) -> None:
    job.start()
    environment, _ = job.wait_for_server()
    wait_for((job.folder / supervisor.ADDRESS).exists, PATIENCE, "the address")
    job.process.send_signal(signal.SIGTERM)
    wait_for((job.folder / supervisor.LEAVING).exists, PATIENCE, "the note")
    assert not server_of(environment)()
    (job.folder / supervisor.JOB).unlink()
    assert job.end()[0] == 0
    assert server_of(environment)()


def test_a_job_whose_folder_is_gone_does_nothing(job: Job) -> None:
    line = [sys.executable, "-I", "-S", supervisor.__file__, str(job.folder / "gone")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nobody waits for this job" in done.stdout


def test_a_reserved_port_is_kept_for_the_server_alone() -> None:
    with supervisor.reserved_port("127.0.0.1") as holder:
        port = holder.getsockname()[1]
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)):  # as every server does, with SO_REUSEADDR
            pass


def test_a_file_system_that_fails_for_a_moment_ends_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tmp_path)
    (job.folder / supervisor.JOB).write_text("{}")
    lease = supervisor.Lease(job.folder, 1000.0)
    stat = os.stat

    def stale(path: Any, *rest: Any, **named: Any) -> os.stat_result:
        if Path(path).name == supervisor.JOB:
            raise OSError(errno.ESTALE, "Stale file handle")
        return stat(path, *rest, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", stale)
        patched.setattr(Path, "exists", lambda self: os.path.exists(self))  # as Python 3.14 does it
        assert lease.why_over() == ""
    (job.folder / supervisor.JOB).unlink()
    assert lease.why_over() == "the pool has taken its folder away"
