"""How long a dry run of the whole of GSM8K takes, and how it grows."""

from __future__ import annotations

import resource
import subprocess
import tempfile
import time
from pathlib import Path

from emoprobe.config.files import load_config
from tests.benchmarks.measure import questions, report
from tests.workspace import ROOT, Workspace


def run() -> None:
    """Seven variants on 100 to 1,319 samples, generation alone and with captures."""
    variants = load_config(ROOT / "config/experiments/seven_variants.yaml").resolved()["variants"]
    for captured in (False, True):
        for samples in (100, 400, 1319):
            with tempfile.TemporaryDirectory() as folder:
                config = {
                    "experiment": {"name": "plan"},
                    "dataset": questions(samples),
                    "variants": variants,
                    "capture": {"enabled": captured},
                }
                workspace = Workspace(Path(folder), config)
                started = time.monotonic()
                subprocess.run(
                    workspace.command("-n"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
                seconds = time.monotonic() - started
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            jobs = samples * 7 * (2 if captured else 1)
            report(
                "planning", samples=samples, captures=captured, jobs=jobs, seconds=seconds,
                ms_per_job=1000 * seconds / jobs, peak_gib_so_far=peak,
            )  # fmt: skip
