"""What a server in a SLURM job costs: its start beside a local one, what it compiles, and whether it answers the same.

Starts are counted from the decision to start until the first token, with nothing else in the queue.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from emoprobe.config.files import parse_config
from emoprobe.models.source import ModelCard
from emoprobe.results import atomic
from emoprobe.results.layout import Layout
from server.pool.fleet import ServerDemand
from server.pool.fleets import COMPILED, Fleets
from server.pool.launch import Kind, free_port
from server.pool.local_process import Command, LocalProcess
from server.pool.run import ExperimentJobs
from server.pool.worker import Worker
from tests.benchmarks.measure import TICKS, embedded_model, report
from tests.conftest import VARIANTS
from tests.server.pool.slurm_house import LIMITS, jobs
from tests.workflow.pool import end_pool
from tests.workspace import ROOT, Workspace

SHAPE = {"cpus": 2, "memory": "7G", "time": "01:00:00"}
SECONDS = 600.0
COMPILE_ROUNDS = 1


def small_starts(folder: Path) -> None:
    """Starts of stubs, which take nothing themselves, and of NNsight servers."""
    for number in range(5):
        for place in ("local", "slurm"):
            seconds = asyncio.run(_stub_start(_made(folder / f"stub-{place}-{number}"), place))
            report("slurm_start", kind="stub", place=place, round=number, seconds=seconds)
    for number in range(2):
        for place in ("local", "slurm"):
            seconds, cpu = _start("nnsight", folder / "nnsight", place)
            report("slurm_start", kind="nnsight", place=place, round=number, seconds=seconds, cpu_seconds=cpu)


def vllm_starts(folder: Path) -> None:
    """Starts of vLLM, and of vLLM that compiles: the first finds an empty cache, the second what the first compiled."""
    for place in ("local", "slurm"):
        seconds, cpu = _start("vllm", folder / "eager", place)
        report("slurm_start", kind="vllm", compile=False, place=place, seconds=seconds, cpu_seconds=cpu)
    for number in range(COMPILE_ROUNDS):
        results = folder / f"compiled-{number}"
        for cache in ("empty", "filled"):
            seconds, cpu = _start("vllm", results, "slurm", compiled=True)
            size = sum(path.stat().st_size for path in (results / COMPILED).rglob("*") if path.is_file())
            report(
                "slurm_start", kind="vllm", compile=True, place="slurm", round=number, cache=cache, seconds=seconds,
                cpu_seconds=cpu, cached_mib=size / 2**20,
            )  # fmt: skip


def same_answers(folder: Path) -> None:
    """One experiment on a local vLLM server and on two in SLURM jobs: how many trajectories are the same, byte for byte."""
    for compiled in (False, True):
        made = {
            place: _trajectories(_made(folder / f"{place}-{compiled:d}"), workers, compiled)
            for place, workers in (("local", {"count": 1}), ("slurm", {"slurm": [{**SHAPE, "count": 2}]}))
        }
        here, there = (trajectories for trajectories, _ in made.values())
        report(
            "slurm_answers", kind="vllm", compile=compiled, trajectories=len(here),
            identical=sum(there.get(path) == content for path, content in here.items()),
            servers=made["slurm"][1],
        )  # fmt: skip


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


async def _stub_start(folder: Path, place: str) -> float:
    """Seconds until a stub's first answer: the way to it is all that they are spent on."""
    async with jobs(folder) as made:
        if place == "slurm":
            made.add()
        else:
            local = LocalProcess("vllm-0", _local_stub, folder / "local.log")
            made.fleet.workers.append(Worker("vllm-0", "stub", None, LIMITS, local, made.fleet.changed))
        started = time.monotonic()
        await made.ask()
        return time.monotonic() - started


def _local_stub() -> Command:
    port = free_port(0)
    line = [sys.executable, "-m", "server.pool.child", "tests.stub_server", str(port)]
    return Command(line, {**os.environ, "PYTHONPATH": str(ROOT)}, [], port)


def _start(kind: Kind, results: Path, place: str, *, compiled: bool = False) -> tuple[float, float]:
    """Seconds from the decision to start a server until its first token, and seconds of CPU that it took for that."""
    workers: dict[str, Any] = {"kv_cache_gib": 1, "slurm": [SHAPE] if place == "slurm" else []}
    engine = {"max_model_len": 512, "compile": compiled}
    config = parse_config({"experiment": {"name": "bench"}, "workers": workers, "generation": {"engine": engine}})
    layout, model = Layout.of("bench", results), embedded_model()
    atomic.write_json(layout.model, ModelCard(str(model), str(model), None, "unused", 2048).to_json())
    return asyncio.run(_first_token(kind, ExperimentJobs(config, results, results)))


async def _first_token(kind: Kind, experiment: ExperimentJobs) -> tuple[float, float]:
    body = {
        "model": experiment.model_name,
        "messages": [{"role": "user", "content": "1 + 1?"}],
        "max_tokens": 1,
        "temperature": 0.0,
    }
    fleets = Fleets()
    started = time.monotonic()
    try:
        fleet = fleets.of(kind, experiment, experiment.results / "logs")
        await fleet.deliver(ServerDemand(0, "/v1/chat/completions", body, SECONDS, dict))
        seconds = time.monotonic() - started
        return seconds, _cpu_of(fleet.workers[0].url)
    finally:
        await fleets.stop()


def _cpu_of(url: str) -> float:
    """CPU seconds of the server at a URL and of all that it has started; each server leads a session of its own."""
    port = f"\0--port\0{url.rpartition(':')[2]}\0".encode()
    stats = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            stats[entry] = (entry / "stat").read_text().rpartition(")")[2].split()
    sessions = {fields[3] for entry, fields in stats.items() if port in _command_line(entry)}
    ticks = sum(int(count) for fields in stats.values() if fields[3] in sessions for count in fields[11:15])
    return ticks / TICKS


def _command_line(entry: Path) -> bytes:
    try:
        return (entry / "cmdline").read_bytes()
    except OSError:
        return b""


def _trajectories(folder: Path, workers: dict[str, Any], compiled: bool) -> tuple[dict[str, bytes], int]:
    """The trajectories of a small experiment, and how many servers have made them."""
    config = {
        "experiment": {"name": "bench"},
        "model": {"source": str(embedded_model())},
        "dataset": {"samples": 8},
        "variants": VARIANTS,
        "generation": {"max_tokens": 24, "engine": {"max_model_len": 512, "compile": compiled}},
        "workers": {"kv_cache_gib": 1, "requests": 4, **workers},
        "capture": {"enabled": False},
    }
    workspace = Workspace(folder, config)
    try:
        workspace.run("--until", "generate")
    finally:
        end_pool(config)
    made = workspace.trajectories()
    outcomes = [workspace.layout.root.joinpath(path).with_name("sample.json") for path in made]
    return made, len({json.loads(path.read_text())["worker_id"] for path in outcomes})
