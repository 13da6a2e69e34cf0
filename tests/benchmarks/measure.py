"""What the benchmarks share: an experiment in a temporary folder, CPU time, and their one way of reporting."""

from __future__ import annotations

import json
import os
import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emoprobe.config.science.model import Model
from emoprobe.models import source as models
from tests.workflow.pool import pool_process, pool_status
from tests.workspace import ROOT, Workspace

SHARED_GSM8K = ROOT.parent / "shared/data/gsm8k/test.jsonl"
TICKS = os.sysconf("SC_CLK_TCK")


def report(benchmark: str, **figures: Any) -> None:
    """Print one JSON object on a line of its own."""
    rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in figures.items()}
    print(
        json.dumps({"benchmark": benchmark, **rounded, "cores": os.cpu_count(), "machine": platform.machine()}),
        flush=True,
    )


def embedded_model() -> Path:
    """The embedded model as a directory."""
    return Path(models.prepare(Model(), ROOT / "results/models").path)


def questions(count: int) -> dict[str, Any]:
    """A dataset section: GSM8K where its file lies beside the project, else the embedded problems."""
    if SHARED_GSM8K.exists():
        return {"source": str(SHARED_GSM8K), "samples": count}
    return {"source": "gsm_symbolic", "samples": count}


def process_cpu(pid: int) -> float:
    """CPU seconds of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def process_peak(pid: int) -> float:
    """The most memory that a running process has held, in GiB; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 2**20 for line in lines if line.startswith("VmHWM")), 0.0)


@contextmanager
def timed_run(workspace: Workspace, *arguments: str) -> Iterator[dict[str, float]]:
    """Run snakemake to its end; afterwards the mapping holds wall and CPU seconds outside of the model server.

    CPU counts snakemake, every job that it waited for, and the pool. The pool's config must keep it alive.
    """
    found: dict[str, float] = {}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    status = pool_status(workspace.config)
    pool_before = process_cpu(status["pid"]) if status else 0.0
    started = time.monotonic()
    workspace.run(*arguments)
    found["wall"] = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    pool = process_cpu(pool_process(workspace.config)) - pool_before
    found["cpu"] = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime + pool
    found["cpu_pool"] = pool
    yield found
