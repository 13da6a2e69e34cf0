"""Two servers in jobs of a real SLURM, held in the middle of a request, and a clock for what comes after a fault."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from server.guard import KEY_VARIABLE
from server.pool.slurm.folder import FOLDER, JobAddress
from tests.chaos.scene import Scene, tiny_model
from tests.conftest import PATIENCE
from tests.slurm import Slurm
from tests.workflow.pool import pool_status, server_process
from tests.workspace import Process, wait_for

NAMES = ("nnsight-0", "nnsight-1")
# On a cluster with one server a node, so that a node's fate is one server's.
SHAPE = {"cpus": 3, "memory": "2G", "time": "01:00:00", "count": 2}


class SlurmScene(Scene):
    """Trajectories and captures from two real NNsight servers in SLURM jobs, on two nodes."""

    def __init__(self) -> None:
        sections = {
            "model": {"source": str(tiny_model())},
            "generation": {"backend": "nnsight", "max_tokens": 24},
            "workers": {"requests": 2, "slurm": [SHAPE]},
            "capture": {"dtype": "float32"},
        }
        super().__init__(sections, ("--until", "generate_and_capture"))
        self._cluster_folder = tempfile.TemporaryDirectory(prefix="chaos-slurm-", ignore_cleanup_errors=True)
        os.chmod(self._cluster_folder.name, 0o755)
        self.slurm = Slurm(Path(self._cluster_folder.name))
        self.slurm.start()
        os.environ["SLURM_CONF"] = str(self.slurm.config)
        self._began = 0.0
        self._before: dict[str, Any] = {}

    def close(self) -> None:
        super().close()
        os.environ.pop("SLURM_CONF", None)
        self.slurm.stop()
        self._cluster_folder.cleanup()

    def hold(self, process: Process) -> list[int]:
        """Wait until both servers have requests in flight, and stop them there; return their processes."""
        held: dict[str, int] = {}
        while len(held) < len(NAMES):
            for name in NAMES:
                found = server_process(self.workspace.config, name)
                if name not in held and found is not None and self.worker(name).get("in_flight", 0) > 0:
                    os.kill(found, signal.SIGSTOP)
                    held[name] = found
            assert process.poll() is None, self.printed()[-3000:]
            time.sleep(0.02)
        return [held[name] for name in NAMES]

    def begin(self) -> None:
        """The fault comes now: what follows is counted from here, and compared with this state."""
        worker, served = self.worker(NAMES[0]), self._served()
        self._before = {"jobs": self.jobs(), "pool": self._pool(), "worker": worker, "served": served}
        self.begin_clock()

    def begin_clock(self) -> None:
        """Count from here, where the fault itself takes its time to come."""
        self._began = time.monotonic()

    def note(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something holds; note how many seconds after the fault it did."""
        wait_for(holds, PATIENCE, f"{what} of {self.folder.name}")
        self.measured[what] = round(self.elapsed(), 1)

    def elapsed(self) -> float:
        """Seconds since the fault."""
        return time.monotonic() - self._began

    def note_return(self) -> None:
        """Note when the first server's loss was seen, when a job took its place, and when that answered a request."""
        self.note("loss_seen", self.is_lost)
        self.note("submitted_again", lambda: bool(self.jobs() - self._before["jobs"]))
        self.note("live_again", lambda: self._is_back() and self.worker(NAMES[0]).get("state") == "live")
        self.note("served_again", self._has_served)

    def note_answer(self) -> None:
        """Note when a server that has stood all the time has answered the next request."""
        self.note("served_again", lambda: self._served() > self._before["served"])

    def is_lost(self) -> bool:
        """Whether the pool, or the next one after its own end, has seen that the first server is lost."""
        was_live = self._before["worker"].get("state") == "live"
        return self._is_back() or (was_live and self.worker(NAMES[0]).get("state") != "live")

    def _is_back(self) -> bool:
        restarts = self._before["worker"].get("restarts", 0)
        return self._pool() not in (None, self._before["pool"]) or self.worker(NAMES[0]).get("restarts", 0) > restarts

    def _has_served(self) -> bool:
        served = self._before["worker"].get("served", 0) if self._pool() == self._before["pool"] else 0
        return int(self.worker(NAMES[0]).get("served", 0)) > served

    def _served(self) -> int:
        return sum(self.worker(name).get("served", 0) for name in NAMES)

    def _pool(self) -> int | None:
        status = pool_status(self.workspace.config)
        return None if status is None else status["pid"]

    def address(self, name: str) -> JobAddress | None:
        """What the job that is to hold a server says of it; None where it has said nothing yet."""
        for path in sorted((self.folder / "results" / FOLDER).glob(f"*/{name}-*/address.json"), reverse=True):
            with suppress(OSError):
                return JobAddress(**json.loads(path.read_text()))
        return None

    def node(self, name: str) -> str:
        """The node where a server stands."""
        address = self.address(name)
        assert address is not None
        return address.node

    def job_of(self, name: str) -> str:
        """The number of the job that holds a server."""
        options = ["--noheader", f"--nodelist={self.node(name)}", "--states=RUNNING", "--format=%i"]
        return self.slurm.run("squeue", *options).split()[0]

    def jobs(self) -> set[int]:
        """The numbers of all jobs of pools in the queue."""
        lines = self.slurm.run("squeue", "--noheader", "--format=%i %j").splitlines()
        return {int(number) for number, name in (line.split() for line in lines) if name.startswith("emoprobe-")}

    def left_over(self) -> list[str]:
        """Processes, jobs and folders of jobs that are left."""
        folders = [f"folder: {path}" for path in (self.folder / "results" / FOLDER).glob("*")]
        return [*self.processes_left(), *(f"job: {number}" for number in self.jobs()), *folders]

    def processes_left(self) -> list[str]:
        """Processes of workflow, pool, jobs and servers."""
        return super().left_over()

    def restarts(self) -> list[int]:
        """How often each server was restarted."""
        return [self.worker(name)["restarts"] for name in NAMES]

    def key(self) -> str:
        """The key of the servers, which one of them alone can tell."""
        process = server_process(self.workspace.config, NAMES[0])
        entries = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
        return next(entry for entry in entries if entry.startswith(KEY_VARIABLE.encode())).decode().partition("=")[2]


class Impostor:
    """A program that has taken a server's port: it agrees to everything, and keeps what it is told."""

    def __init__(self, address: JobAddress) -> None:
        self.heard: list[tuple[str, str]] = []
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                heard.append((self.path, str(self.headers)))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_POST = do_GET  # noqa: N815 (the name that http.server looks for)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer((address.host, address.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Give the port back."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def impostor_at(address: JobAddress) -> Iterator[Impostor]:
    """Another program at a server's address while the block lasts; it takes the port as soon as that is free."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            impostor = Impostor(address)
            break
        except OSError:
            assert time.monotonic() < deadline, f"{address.url} is never free"
            time.sleep(0.01)
    try:
        yield impostor
    finally:
        impostor.close()


def let_go(processes: list[int]) -> None:
    """Let servers go on that were held."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)
