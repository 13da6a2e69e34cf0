"""Faults, injected for real, and what came of each: python -m tests.chaos [NAME ...] prints one JSON line a fault.

Servers are stubs that misbehave on demand; processes are killed by their number. Every fault ends in a finished
experiment whose trajectories are those of an undisturbed run, or in one clear error.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from tests.benchmarks.measure import embedded_model
from tests.conftest import VARIANTS, StubServer
from tests.integration.pool import end_pool, pool_status
from tests.workspace import Workspace, processes_of, wait_for

SAMPLES = 4
PAIRS = SAMPLES * len(VARIANTS)
GOAL = ("--until", "analyze_behaviour")
BUSY = {"delay": 0.3, "requests": 2}  # so that both servers have requests in flight


class Scene:
    """A folder, some stub servers, and a small experiment on them."""

    def __init__(self, servers: int = 2, delay: float = 0.0, **workers: Any) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        os.environ["EMOPROBE_TEST"] = str(self.folder)
        self.servers = [StubServer(delay) for _ in range(servers)]
        config = {
            "experiment": {"name": "chaos"},
            "model": {"source": str(embedded_model())},
            "dataset": {"samples": SAMPLES},
            "variants": VARIANTS,
            "generation": {"max_tokens": 32, "timeout": 3.0},
            "workers": {
                "endpoints": [server.url for server in self.servers], "model_name": "stub", "start_timeout": 4.0,
                "hang_timeout": 6.0, **workers,
            },
            "capture": {"enabled": False},
        }  # fmt: skip
        self.workspace = Workspace(self.folder, config)

    def set_faults(self, *faults: dict[str, Any], server: int = 0) -> None:
        """Set what goes wrong at a server."""
        self.servers[server].set_faults(*faults)

    def run(self, *, ok: bool = True) -> str:
        """Run the workflow as far as the faults concern it."""
        return self.workspace.run(*GOAL, ok=ok)

    def failures(self) -> int:
        """Failed attempts in the workers' table."""
        return int(pd.read_parquet(self.workspace.layout.table("workers"))["failures"].sum())

    def start(self) -> Any:
        """Start the workflow and wait until requests are in flight."""
        process = self.workspace.start(*GOAL)
        wait_for(lambda: sum(len(server.requests()) for server in self.servers) >= 2, 60, "requests in flight")
        return process

    def close(self) -> None:
        """End everything."""
        end_pool(self.workspace.config)
        for server in self.servers:
            server.process.send_signal(signal.SIGCONT)
            server.stop()
        del os.environ["EMOPROBE_TEST"]
        shutil.rmtree(self.folder, ignore_errors=True)


def undisturbed() -> dict[str, bytes]:
    """The trajectories of a run in which nothing goes wrong."""
    scene = Scene(1)
    try:
        scene.run()
        return scene.workspace.trajectories()
    finally:
        scene.close()


def answer_fault(fault: dict[str, Any]) -> Callable[[Scene], str]:
    """One of two servers answers badly a few times: the other one does, and the table tells."""

    def inject(scene: Scene) -> str:
        scene.set_faults(fault)
        scene.run()
        assert scene.failures() >= 1
        return f"complete, {scene.failures()} failed attempts in the table"

    return inject


def slow(scene: Scene) -> str:
    scene.set_faults({"kind": "slow", "seconds": 2.0, "times": 2})
    scene.run()
    assert scene.failures() == 0
    return "complete, waited"


def refused(scene: Scene) -> str:
    for server in (0, 1):
        scene.set_faults(
            {"kind": "status", "status": 400, "message": "too long", "match": "It is a quiet day", "times": 99},
            server=server,
        )
    output = scene.run(ok=False)
    made = scene.workspace.trajectories()
    assert len(made) == PAIRS - 2, sorted(made)
    assert "What failed, and why" in output
    assert "too long" in output
    asked = [
        request
        for server in scene.servers
        for request in server.requests()
        if "It is a quiet day" in json.dumps(request)
    ]
    assert len(asked) == 2, len(asked)
    for server in (0, 1):
        scene.set_faults(server=server)
    scene.run()
    return "failed alone, asked once each, the rest went on; complete after the cause was gone"


def wrong_model(scene: Scene) -> str:
    scene.workspace.config["workers"]["model_name"] = "other"
    started = time.monotonic()
    output = scene.run(ok=False)
    assert "serves stub, not other" in output
    assert time.monotonic() - started < 30
    scene.workspace.config["workers"]["model_name"] = "stub"
    scene.run()
    return "one clear error; complete with the right name"


def nobody_answers(scene: Scene) -> str:
    urls = scene.workspace.config["workers"]["endpoints"]
    scene.workspace.config["workers"]["endpoints"] = ["http://127.0.0.1:9"]
    started = time.monotonic()
    output = scene.run(ok=False)
    seconds = time.monotonic() - started
    assert "No model server is left" in output
    assert seconds < 30, seconds
    scene.workspace.config["workers"]["endpoints"] = urls
    scene.run()
    return f"one clear error after {seconds:.0f} s (start_timeout 4 s); complete afterwards"


def kill_worker(number: signal.Signals) -> Callable[[Scene], str]:
    """A server is killed, or stopped, in mid-run."""

    def inject(scene: Scene) -> str:
        process = scene.start()
        scene.servers[0].process.send_signal(number)
        assert process.wait(120) == 0, (scene.folder / "snakemake.out").read_text()[-3000:]
        return f"complete, {scene.failures()} failed attempts in the table"

    return inject


def kill_workflow(number: signal.Signals) -> Callable[[Scene], str]:
    """Snakemake is ended in mid-run; the next run finishes."""

    def inject(scene: Scene) -> str:
        process = scene.start()
        os.kill(process.pid, number)
        if number is not signal.SIGTERM:
            process.wait(30)
        else:
            process.wait(60)  # it finishes the jobs that run
        started = time.monotonic()
        ours = {server.process.pid for server in scene.servers}
        wait_for(
            lambda: not [line for line in processes_of(scene.folder) if int(line.split(":")[0]) not in ours],
            10,
            "no orphans",
        )
        seconds = time.monotonic() - started
        before = len(scene.workspace.trajectories())
        scene.workspace.run("--unlock")
        scene.run()
        return f"no process left after {seconds:.1f} s, {before} trajectories kept, complete after a re-run"

    return inject


def kill_pool(scene: Scene) -> str:
    process = scene.start()
    os.kill(pool_status(scene.workspace.config)["pid"], signal.SIGKILL)
    assert process.wait(120) == 0, (scene.folder / "snakemake.out").read_text()[-3000:]
    return "complete, with a new pool"


def kill_everything(scene: Scene) -> str:
    process = scene.start()
    ours = {server.process.pid for server in scene.servers}
    for line in processes_of(scene.folder):
        if int(line.split(":")[0]) not in ours:
            os.kill(int(line.split(":")[0]), signal.SIGKILL)
    process.wait(30)
    scene.workspace.run("--unlock")
    scene.run()
    return "complete after a re-run"


def two_workflows_one_folder(scene: Scene) -> str:
    process = scene.start()
    output = scene.run(ok=False)
    assert "lock" in output.lower()
    assert process.wait(120) == 0
    return "the second is told that the folder is locked, the first completes"


def two_folders_one_pool(scene: Scene) -> str:
    scene.workspace.config["workers"]["keep_alive"] = 20.0
    other = Workspace(scene.folder / "other", scene.workspace.config)
    other.folder.mkdir()
    first, second = scene.workspace.start(*GOAL), other.start(*GOAL)
    assert first.wait(120) == 0
    assert second.wait(120) == 0, (other.folder / "snakemake.out").read_text()[-3000:]
    assert other.trajectories() == scene.workspace.trajectories()
    assert sum(worker["served"] for worker in pool_status(scene.workspace.config)["workers"]) == 2 * PAIRS
    return "both complete, one pool"


FAULTS: dict[str, tuple[Callable[[Scene], str], dict[str, Any]]] = {
    "status_500": (answer_fault({"kind": "status", "status": 500, "times": 3}), BUSY),
    "status_429": (answer_fault({"kind": "status", "status": 429, "headers": {"Retry-After": "1"}, "times": 2}), BUSY),
    "truncated_json": (answer_fault({"kind": "truncated", "times": 2}), BUSY),
    "reset_in_mid_answer": (answer_fault({"kind": "reset", "times": 2}), BUSY),
    "empty_completion": (answer_fault({"kind": "empty", "times": 2}), BUSY),
    "nonsense": (answer_fault({"kind": "nonsense", "times": 2}), BUSY),
    "no_answer": (answer_fault({"kind": "hang", "times": 1}), BUSY),
    "slow": (slow, {}),
    "refused_400": (refused, {}),
    "wrong_model_name": (wrong_model, {}),
    "nobody_answers": (nobody_answers, {}),
    "worker_killed": (kill_worker(signal.SIGKILL), {**BUSY, "delay": 1.0}),
    "worker_stopped": (kill_worker(signal.SIGSTOP), {**BUSY, "delay": 1.0}),
    "workflow_sigkill": (kill_workflow(signal.SIGKILL), {**BUSY, "delay": 1.0}),
    "workflow_sigterm": (kill_workflow(signal.SIGTERM), {**BUSY, "delay": 1.0}),
    "workflow_ctrl_c": (kill_workflow(signal.SIGINT), {**BUSY, "delay": 1.0}),
    "pool_killed": (kill_pool, {**BUSY, "delay": 1.0}),
    "everything_killed": (kill_everything, {**BUSY, "delay": 1.0}),
    "two_workflows_one_folder": (two_workflows_one_folder, {**BUSY, "delay": 1.0}),
    "two_folders_one_pool": (two_folders_one_pool, {"delay": 0.5}),
}


def run(name: str, expected: dict[str, bytes]) -> dict[str, Any]:
    """Inject one fault; tell what happened.

    Raises:
        AssertionError: it did not end as it must.
    """
    inject, options = FAULTS[name]
    scene = Scene(**options)
    started = time.monotonic()
    try:
        happened = inject(scene)
        made = scene.workspace.trajectories()
        ours = {server.process.pid for server in scene.servers}
        end_pool(scene.workspace.config)
        wait_for(
            lambda: not [line for line in processes_of(scene.folder) if int(line.split(":")[0]) not in ours],
            10,
            "no orphans",
        )
        return {
            "fault": name,
            "happened": happened,
            "seconds": round(time.monotonic() - started, 1),
            "lost": len(expected.keys() - made.keys()),
            "different": sum(made[path] != expected[path] for path in made.keys() & expected.keys()),
            "duplicated": len(made.keys() - expected.keys()),
            "orphans": 0,
        }
    finally:
        scene.close()


def main() -> None:
    """Inject the named faults, or all."""
    expected = undisturbed()
    failed = False
    for name in sys.argv[1:] or list(FAULTS):
        try:
            result = run(name, expected)
        except Exception as error:
            failed, result = True, {"fault": name, "happened": f"NOT SURVIVED: {type(error).__name__}: {error}"[:3000]}
        print(json.dumps(result), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
