"""A folder, its servers, a small experiment on them, and what is left of it after a fault."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from emoprobe.results import activations
from emoprobe.results.verification import check_trajectory
from tests.benchmarks.measure import embedded_model
from tests.conftest import PATIENCE, VARIANTS, StubServer
from tests.server.capture import tiny_models
from tests.workflow.pool import end_pool, server_process, worker_status
from tests.workspace import Process, Workspace, processes_of, wait_for, without_weights

SAMPLES = 4
PAIRS = SAMPLES * len(VARIANTS)


class Scene:
    """An experiment, and how far it is run.

    Args:
        sections: sections of its config, over the common ones.
        goal: arguments of every run.
        servers: stub servers that generate; without any, the pool starts real ones.
        delay: seconds that a stub takes for an answer.
    """

    def __init__(self, sections: dict[str, Any], goal: tuple[str, ...], servers: int = 0, delay: float = 0.0) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="chaos-"))
        os.environ["EMOPROBE_TEST"] = str(self.folder)
        self.goal = goal
        self.measured: dict[str, float] = {}
        """Seconds after the fault, by what happened then."""
        self.servers = [StubServer(delay) for _ in range(servers)]
        config: dict[str, Any] = {
            "experiment": {"name": "chaos"},
            "dataset": {"samples": SAMPLES},
            "variants": VARIANTS,
            **sections,
        }
        if servers:
            workers = {"endpoints": [server.url for server in self.servers], "model_name": "stub"}
            config["workers"] = workers | config["workers"]
        self.workspace = Workspace(self.folder, config)

    @property
    def workers(self) -> dict[str, Any]:
        """The config's section of the servers."""
        section: dict[str, Any] = self.workspace.config["workers"]
        return section

    def set_faults(self, *faults: dict[str, Any], server: int = 0) -> None:
        """Set what goes wrong at a stub server."""
        self.servers[server].set_faults(*faults)

    def run(self, *, ok: bool = True) -> str:
        """Run the workflow as far as the faults concern it; return what it printed."""
        return self.workspace.run(*self.goal, ok=ok)

    def start(self, *arguments: str) -> Process:
        """Start the workflow and return at once."""
        return self.workspace.start(*self.goal, *arguments)

    def wait_for(self, process: Process, condition: Callable[[], bool], what: str) -> None:
        """Wait until something holds of a started workflow, which must not end before."""
        wait_for(lambda: condition() or process.poll() is not None, PATIENCE, what)
        assert condition() or process.poll() is None, self.printed()[-3000:]

    def start_busy(self, *arguments: str) -> Process:
        """Start the workflow and return when stub servers have requests in flight."""
        process = self.start(*arguments)
        self.wait_for(process, lambda: sum(len(each.requests()) for each in self.servers) >= 2, "requests in flight")
        return process

    def finish(self, process: Process) -> None:
        """Wait for a started workflow, which must succeed."""
        assert process.wait(PATIENCE) == 0, self.printed()[-3000:]

    def printed(self) -> str:
        """What the started workflow has printed so far."""
        return (self.folder / "snakemake.out").read_text()

    def problems(self) -> list[str]:
        """What is not whole of the experiment's trajectories and activations."""
        layout, found = self.workspace.layout, []
        captured = self.workspace.config["capture"].get("enabled", True)
        for variant in VARIANTS:
            for sample in (f"gsm8k_{number:04d}" for number in range(1, SAMPLES + 1)):
                checked = check_trajectory(layout.pair(variant, sample), variant, sample)
                found += checked.problems
                if captured:
                    found += activations.check(layout.activations(variant, sample), None, checked.tokens)
        return found

    def failures(self) -> int:
        """Failed attempts that the trajectories tell of."""
        root = self.workspace.layout.root
        states = [json.loads(path.read_text()) for path in root.glob("*/*/agent_state.json")]
        return sum(attempt["error"] is not None for state in states for attempt in state["attempts"])

    def failures_in_table(self) -> int:
        """The same from the workers' table."""
        self.workspace.run("--until", "analyze_behaviour")
        return int(pd.read_parquet(self.workspace.layout.table("workers"))["failures"].sum())

    def worker(self, name: str) -> dict[str, Any]:
        """What the pool says of a server; empty while it says nothing."""
        return worker_status(self.workspace.config, name)

    def server_process(self, name: str) -> int | None:
        """The number of the process of a server that the pool has started; None while there is none."""
        return server_process(self.workspace.config, name)

    def wait_for_process(self, name: str) -> int:
        """Wait until the pool has started a server; return its process number."""
        wait_for(lambda: self.server_process(name) is not None, PATIENCE, f"a process of {name}")
        number = self.server_process(name)
        assert number is not None
        return number

    def left_over(self) -> list[str]:
        """Processes of this scene, besides the stubs."""
        ours = {server.process.pid for server in self.servers}
        return [line for line in processes_of(self.folder) if int(line.split(":")[0]) not in ours]

    def wait_until_nothing_is_left(self) -> float:
        """Seconds until no process is left.

        Raises:
            TimeoutError: there are orphans.
        """
        started = time.monotonic()
        wait_for(lambda: not self.left_over(), PATIENCE, "no orphans")
        return time.monotonic() - started

    def close(self) -> None:
        """End everything."""
        end_pool(self.workspace.config)
        for server in self.servers:
            server.process.send_signal(signal.SIGCONT)
            server.stop()
        os.environ.pop("EMOPROBE_TEST", None)
        shutil.rmtree(self.folder, ignore_errors=True)


def stubs(servers: int = 2, delay: float = 0.0, **workers: Any) -> Scene:
    """Trajectories from stub servers, without captures."""
    sections = {
        "model": {"source": str(unweighted_model())},
        "generation": {"max_tokens": 32},
        "workers": workers,
        "capture": {"enabled": False},
    }
    return Scene(sections, ("--until", "generate"), servers, delay)


def nnsight(count: int = 2, **workers: Any) -> Scene:
    """Trajectories and their activations from real NNsight servers with a tiny model."""
    sections = {
        "model": {"source": str(tiny_model())},
        "generation": {"backend": "nnsight", "max_tokens": 24},
        "workers": {"count": count, "requests": 2, **workers},
        "capture": {"dtype": "float32"},
    }
    return Scene(sections, ("--until", "generate_and_capture"))


def captures() -> Scene:
    """Finished trajectories whose activations are still to be captured, by a real NNsight server."""
    scene = nnsight(1)
    scene.workspace.config = {**scene.workspace.config, "workers": {"requests": 2}}
    generated = finished_generation()
    vllm = {"backend": "vllm", "engine": {"max_model_len": None}}  # the tiny model holds less than the default
    scene.workspace.config["generation"] = {**scene.workspace.config["generation"], **vllm}
    generated.copy_without_captures(scene.workspace)
    scene.goal = ("--rerun-triggers", "mtime", "--until", "capture")
    return scene


@cache
def unweighted_model() -> Path:
    """The embedded model with next to no weights and a short vocabulary, kept until the interpreter ends."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return without_weights(embedded_model(), folder)


@cache
def tiny_model() -> Path:
    """A tiny random Llama, kept until the interpreter ends."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-model-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return tiny_models.make("llama", unweighted_model(), folder)


@cache
def finished_generation() -> Workspace:
    """The experiment of `nnsight()`, finished without a fault; kept until the interpreter ends."""
    scene = nnsight(1)
    atexit.register(scene.close)
    scene.run()
    end_pool(scene.workspace.config)
    return scene.workspace


@cache
def stub_trajectories() -> dict[str, bytes]:
    """The trajectories of `stubs()` when nothing goes wrong."""
    scene = stubs(1)
    try:
        scene.run()
        return scene.workspace.trajectories()
    finally:
        scene.close()


def nnsight_trajectories() -> dict[str, bytes]:
    """The trajectories of `nnsight()` when nothing goes wrong."""
    return finished_generation().trajectories()


@dataclass(frozen=True)
class Fault:
    """A fault, what is expected of it, and the scene that it happens in.

    `inject` brings it about, checks what must hold, ends with a finished experiment and tells what happened.
    """

    expected: str
    inject: Callable[[Scene], str]
    scene: Callable[[], Scene] = stubs
    undisturbed: Callable[[], dict[str, bytes]] | None = stub_trajectories


def survive(name: str, fault: Fault) -> dict[str, Any]:
    """Inject one fault; tell what happened.

    Raises:
        AssertionError, TimeoutError: it did not end as it must.
    """
    wanted = fault.undisturbed() if fault.undisturbed is not None else None
    scene = fault.scene()
    started = time.monotonic()
    try:
        happened = fault.inject(scene)
        made = scene.workspace.trajectories()
        assert scene.problems() == []
        end_pool(scene.workspace.config)
        with suppress(TimeoutError):
            scene.wait_until_nothing_is_left()
        wanted = made if wanted is None else wanted
        return {
            "fault": name,
            "expected": fault.expected,
            "happened": happened,
            **scene.measured,
            "seconds": round(time.monotonic() - started, 1),
            "lost": PAIRS - len(wanted.keys() & made.keys()),
            "different": sum(made[path] != wanted[path] for path in made.keys() & wanted.keys()),
            "duplicated": len(made.keys() - wanted.keys()),
            "orphans": len(scene.left_over()),
        }
    finally:
        scene.close()
