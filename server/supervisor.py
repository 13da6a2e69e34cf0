"""What a SLURM job runs: it starts one model server on its node and ends it when it should go.

Usage: python -I -S supervisor.py FOLDER

The pool has written into FOLDER, which only its user can enter, what to start (`job.json`) and the server's key (`key`,
deleted once it is read). The answers go there as well: `address.json` when the server has a port, `leaving.json` when
SLURM wants the job to end, `ended.json` when the server has ended by itself or cannot be started at all.

The server ends with the job, and the job with the pool: when FOLDER is gone, or when the pool's lease, a file beside
FOLDER that it touches every few seconds, has been left alone for too long. Clocks are not compared, as those of two
machines may differ: what counts is that the file's date changes. Only the standard library is used, and
`emoprobe.models.hardware`, which uses nothing else: so the job starts at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CODE = Path(__file__).parents[1]
if str(CODE) not in sys.path:  # a job runs this file alone
    sys.path.append(str(CODE))
from emoprobe.models.hardware import described, visible, why_without_gpu, without_batch_invariance  # noqa: E402

JOB, KEY, ADDRESS, LEAVING, ENDED, LEASE = "job.json", "key", "address.json", "leaving.json", "ended.json", "lease"
LOOK_SECONDS = 0.25
LEASE_LOOK_SECONDS = 1.0
# After a warning the pool moves what is in flight and takes FOLDER away; this is how long it may take over that.
LEAVE_SECONDS = 60.0
STOP_SECONDS = 5.0
# What SLURM and the node decide is kept; everything else comes from the pool's list.
NODE_VARIABLES = (
    "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "NVIDIA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "SLURMD_NODENAME",
    "SLURM_JOB_ID", "TMPDIR",
)  # fmt: skip


class Lease:
    """The pool's claim on a server.

    Args:
        folder: the job's.
        seconds: how long the lease may stay the same.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self._folder, self._seconds = folder, seconds
        self._touched: int | None = None
        self._changed = time.monotonic()

    def why_over(self) -> str:
        """Return why the server should end; empty while it should not."""
        try:
            os.stat(self._folder / JOB)  # `Path.exists` hides errors of the file system from Python 3.14 on
        except FileNotFoundError:
            return "the pool has taken its folder away"
        except OSError:
            pass  # the file system has a bad moment
        try:
            with open(self._folder.parent / LEASE, "rb") as lease:  # NFS asks its server only where a file is opened
                touched: int | None = os.fstat(lease.fileno()).st_mtime_ns
        except FileNotFoundError:
            return "the pool has taken its lease away"
        except OSError:  # as above; the lease runs
            touched = self._touched
        if touched != self._touched:
            self._touched, self._changed = touched, time.monotonic()
        if time.monotonic() - self._changed > self._seconds:
            return f"the pool has not renewed its lease for {self._seconds:g} s"
        return ""


class Supervisor:
    """Starts the server of a job and ends it.

    Args:
        folder: the job's.

    Raises:
        OSError: the pool has taken the folder away.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._job: dict[str, Any] = json.loads((folder / JOB).read_text(encoding="utf-8"))
        self._key = (folder / KEY).read_text(encoding="utf-8")
        (folder / KEY).unlink()
        self._lease = Lease(folder, self._job["lease_seconds"])
        self._signalled = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note_signal)

    def run(self) -> int:
        """Run the server to its end, or to the end of the job; return an exit status."""
        line, search_path = self._job["command"], self._job["env"].get("PYTHONPATH", "")
        wrong = why_without_gpu(line[0], search_path) if self._job["gpus"] else ""
        if wrong:
            self._tell(ENDED, {"status": 1, "reason": wrong})
            print(f"supervisor: {wrong}", flush=True)
            return 1
        host = facing(self._job["pool_host"])
        with reserved_port(host) as holder:
            port = holder.getsockname()[1]
            places = {"{host}": host, "{port}": str(port)}
            line = [places.get(argument, argument) for argument in line]
            gpus = visible(os.environ.get("CUDA_VISIBLE_DEVICES")) if self._job["gpus"] else []
            server = subprocess.Popen(line, env=self._environment(gpus), cwd="/", start_new_session=True)
            node = os.environ.get("SLURMD_NODENAME", socket.gethostname())
            address = {"host": host, "port": port, "nonce": self._job["nonce"], "node": node}
            self._tell(ADDRESS, {**address, "hardware": described(gpus)})
            try:
                return self._follow(server)
            finally:
                end(server)

    def _note_signal(self, *_: object) -> None:
        self._signalled = True

    def _follow(self, server: subprocess.Popen[bytes]) -> int:
        looked = 0.0
        while True:
            time.sleep(LOOK_SECONDS)
            status = server.poll()
            if status is not None:
                time.sleep(2 * LOOK_SECONDS)  # the same signal may have gone to both
            if self._signalled:
                return self._leave(server)
            if status is not None:
                self._tell(ENDED, {"status": status})
                print(f"supervisor: the server ended with status {status}", flush=True)
                return 1 if status == 0 else status & 0xFF
            if time.monotonic() - looked >= LEASE_LOOK_SECONDS:
                looked, why = time.monotonic(), self._lease.why_over()
                if why:
                    print(f"supervisor: {why}", flush=True)
                    return 0

    def _leave(self, server: subprocess.Popen[bytes]) -> int:
        """Tell the pool that SLURM wants the job to end, and give it time to move what is in flight."""
        self._tell(LEAVING, {})
        print("supervisor: SLURM wants this job to end", flush=True)
        deadline = time.monotonic() + LEAVE_SECONDS
        while time.monotonic() < deadline and server.poll() is None and not self._lease.why_over():
            time.sleep(LOOK_SECONDS)
        return 0

    def _environment(self, gpus: list[str]) -> dict[str, str]:
        given = {name: os.environ[name] for name in NODE_VARIABLES if name in os.environ}
        env = {**given, **self._job["env"], "EMOPROBE_PARENT": str(os.getpid())}
        env |= {"EMOPROBE_NONCE": self._job["nonce"], "EMOPROBE_API_KEY": self._key, "VLLM_API_KEY": self._key}
        cache = Path(self._job["cache"]) / fingerprint()
        for name in ("VLLM_CACHE_ROOT", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
            env[name] = str(cache / name.partition("_CACHE")[0].lower())
        if self._job["gpus"]:
            return env if without_batch_invariance(gpus) else env | self._job["batch_invariant"]
        env["CUDA_VISIBLE_DEVICES"] = ""
        cores, cpus = sorted(os.sched_getaffinity(0)), self._job["cpus"]
        env["OMP_NUM_THREADS"] = str(min(len(cores), cpus))
        # Where SLURM does not confine the job, nobody knows which cores are others'.
        env["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores)) if len(cores) <= cpus else "nobind"
        return env

    def _tell(self, name: str, value: dict[str, Any]) -> None:
        """Write a file that appears whole, for its user alone; a folder that is gone has nobody who would read it."""
        temporary = self._folder / f".{name}"
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(value, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self._folder / name)
        except OSError:
            return


def facing(pool_host: str) -> str:
    """The address of this node on the network that leads to the pool; nothing is sent to find it."""
    for host in (pool_host, socket.gethostname()):
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.connect((host, 9))
                return str(probe.getsockname()[0])
        except OSError:
            continue
    return socket.gethostbyname(socket.gethostname())


def reserved_port(host: str) -> socket.socket:
    """A socket that keeps a free port without listening, so that others are not given it while the server loads.

    The server, which asks for a port with the same option as all servers do, can listen there all the same.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    holder.bind((host, 0))
    return holder


def fingerprint() -> str:
    """A short name for this node's kind of processor and GPU: what is compiled for one may not run on another."""
    processor = _text(Path("/proc/cpuinfo")).split("\n\n")[0].splitlines()
    about = [line for line in processor if line.startswith(("model name", "flags", "Features", "CPU part"))]
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        about += [line for line in _text(path).splitlines() if line.startswith("Model")]
    return hashlib.sha256("\n".join(about).encode()).hexdigest()[:12]


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def end(server: subprocess.Popen[bytes]) -> None:
    """End a server and everything that it has started: asked first, then without asking."""
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            pass
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    server.wait()


def main() -> int:
    """Run the job of a folder; one that the pool has taken away meanwhile wants nothing any more."""
    try:
        supervisor = Supervisor(Path(sys.argv[1]))
    except OSError as error:
        print(f"supervisor: nobody waits for this job any more ({error})", flush=True)
        return 0
    return supervisor.run()


if __name__ == "__main__":
    sys.exit(main())
