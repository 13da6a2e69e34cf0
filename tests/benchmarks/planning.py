"""How long a plan takes: of everything, against a bare skeleton of the same jobs and files, and of nothing."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoprobe.config.files import load_config
from emoprobe.results.layout import ACTIVATION_FILES, TRAJECTORY_FILES
from tests.benchmarks.measure import process_peak, questions, report
from tests.benchmarks.scale import IN_FLIGHT, full_size
from tests.conftest import StubServer
from tests.workflow.pool import end_pool
from tests.workspace import ROOT, Workspace

FULL = 1319

# No parameter, no log, no environment, no function: what Snakemake itself needs for these jobs and files.
SKELETON = """
SAMPLES = [f"gsm8k_{{number:04d}}" for number in range(1, {samples} + 1)]
VARIANTS = {variants}

rule all:
    input:
        expand("samples/{{sample}}.json", sample=SAMPLES),
        expand("{{variant}}/{{sample}}/{{name}}", variant=VARIANTS, sample=SAMPLES, name={trajectory}),
        expand("activations/{{variant}}/{{sample}}/{{name}}", variant=VARIANTS, sample=SAMPLES, name={activations}),

rule plan:
    output: "plan.json"
    shell: "touch {{output}}"

rule sample:
    output: "samples/{{sample}}.json"
    shell: "touch {{output}}"

rule generate:
    input: "samples/{{sample}}.json", "plan.json"
    output: expand("{{{{variant}}}}/{{{{sample}}}}/{{name}}", name={trajectory})
    wildcard_constraints: variant="|".join(VARIANTS)
    shell: "touch {{output}}"

rule capture:
    input: "{{variant}}/{{sample}}/agent_state.json"
    output: expand("activations/{{{{variant}}}}/{{{{sample}}}}/{{name}}", name={activations})
    wildcard_constraints: variant="|".join(VARIANTS)
    shell: "touch {{output}}"
"""


@dataclass
class Plan:
    """What a dry run took: seconds, and the most memory that it held."""

    seconds: float
    peak_gib: float


def run(arguments: list[str]) -> None:
    """Seven variants of GSM8K with captures, nothing done yet; then without captures, before and after they were made."""
    parser = argparse.ArgumentParser(prog="planning")
    parser.add_argument("--samples", type=int, default=FULL, help="questions; 14 times as many jobs")
    parser.add_argument("--no-noop", action="store_true", help="leave the finished folder out")
    samples = parser.parse_args(arguments).samples
    config: dict[str, Any] = {
        "experiment": {"name": "plan"},
        "dataset": questions(samples),
        "variants": load_config(ROOT / "config/experiments/seven_variants.yaml").resolved()["variants"],
    }
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder), config)
        # Once before the clock starts: bytecode, and the checks of the config that are remembered.
        _timed(workspace.command("-n", "results/plan/model.json"), workspace.folder)
        ours = [_timed(workspace.command("-n"), workspace.folder)]
        bare = [_skeleton(samples, list(config["variants"])) for _ in range(2)]
        ours.append(_timed(workspace.command("-n"), workspace.folder))
        seconds = min(plan.seconds for plan in ours)
        skeleton = min(plan.seconds for plan in bare)
        figures |= {
            "seconds": seconds, "skeleton_seconds": skeleton, "ratio": seconds / skeleton, "peak_gib": ours[0].peak_gib,
            "skeleton_peak_gib": bare[0].peak_gib,
        }  # fmt: skip
    if "--no-noop" not in arguments:
        figures |= _nothing_to_do(samples)
    report("planning", samples=samples, jobs=samples * len(config["variants"]) * 2, **figures)


def _timed(command: list[str], folder: Path, expected: str = "") -> Plan:
    peak = 0.0
    with tempfile.TemporaryFile("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=folder)
        ended = threading.Event()

        def watch() -> None:
            nonlocal peak
            while not ended.wait(0.2):
                peak = max(peak, process_peak(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        seconds = time.monotonic() - started
        ended.set()
        watcher.join()
        output.seek(0)
        text = output.read()
    assert status == 0, text[-3000:]
    assert expected in text, text[-3000:]
    return Plan(seconds, peak)


def _skeleton(samples: int, variants: list[str]) -> Plan:
    with tempfile.TemporaryDirectory() as folder:
        names = {"trajectory": list(TRAJECTORY_FILES), "activations": list(ACTIVATION_FILES)}
        path = Path(folder) / "Snakefile"
        path.write_text(SKELETON.format(samples=samples, variants=variants, **names))
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "-n",
            "--snakefile",
            str(path),
            "--cores",
            "64",
            "--quiet",
            "rules",
        ]
        return _timed([*command, "--notemp"], Path(folder))


def _nothing_to_do(samples: int) -> dict[str, float]:
    """Seconds of a plan without captures, and of the same once a server that answers at once has been asked.

    The run is a real one to its end, as a plan then reads the records of what each file was made from.
    """
    server = StubServer()
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder), full_size(samples, server.url))
        try:
            workspace.run("--until", "plan_analysis", "prepare_sample")
            plan = _timed(workspace.command("-n"), workspace.folder)
            workspace.run("--resources", f"requests={IN_FLIGHT}")
            noop = _timed(workspace.command("-n"), workspace.folder, "Nothing to be done")
        finally:
            end_pool(workspace.config)
            server.stop()
    return {
        "noop_seconds": noop.seconds, "noop_plan_seconds": plan.seconds, "noop_ratio": noop.seconds / plan.seconds,
    }  # fmt: skip
