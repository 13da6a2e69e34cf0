"""What somebody waits for who runs the project for the first time: the default, from nothing to its report, by stage."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from emoprobe.config.files import load_config
from emoprobe.results.layout import Layout
from tests.benchmarks.measure import report
from tests.workspace import ROOT

LIVE = re.compile(r": (\S+): live after ([0-9.]+) s$", re.MULTILINE)


def run(arguments: list[str]) -> None:
    """The default configuration in an empty folder; a stage lasts from the end of the one before it to its last file."""
    parser = argparse.ArgumentParser(prog="first")
    parser.add_argument("--samples", type=int, help="questions, in place of the default's")
    parser.add_argument("--environment", action="store_true", help="make the environment as well, which is told apart")
    options = parser.parse_args(arguments)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.environment:
            figures["environment_seconds"] = _environment(folder / "code")
        values: dict[str, Any] = {"include": [str(ROOT / "config/config.yaml")]}
        if options.samples:
            values["dataset"] = {"samples": options.samples}
        (folder / "config.yaml").write_text(yaml.safe_dump(values))
        layout = Layout.of(load_config(folder / "config.yaml").experiment.name, folder / "results")
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--configfile", "config.yaml", "--resources", "requests=64"]
        began, started = time.time(), time.monotonic()
        with open(folder / "out", "w") as output:
            status = subprocess.run(command, cwd=folder, stdout=output, stderr=output).returncode
        figures["seconds"] = time.monotonic() - started
        assert status == 0, (folder / "out").read_text()[-3000:]
        figures |= _stages(layout, began) | _servers(layout.root / "logs/pool.log")
    report("first", samples=options.samples, **figures)


def _stages(layout: Layout, began: float) -> dict[str, float]:
    """Seconds from the end of the stage before to the last file of each; stages overlap, so one may take none."""
    ends = {
        "model": [layout.model, layout.plan],
        "answers": list(layout.root.glob("*/*/agent_state.json")),
        "captures": list(layout.root.glob("activations/*/*/metadata.json")),
        "probes": [layout.table("probes")],
        "report": [layout.report],
    }
    moments = [began]
    for files in ends.values():
        moments.append(max(moments[-1], *(file.stat().st_mtime for file in files)))
    return {f"{stage}_seconds": after - before for stage, (before, after) in zip(ends, pairwise(moments), strict=True)}


def _servers(log: Path) -> dict[str, float]:
    """Seconds that each server took to start, by its name."""
    starts = LIVE.findall(log.read_text(encoding="utf-8"))
    return {f"start_seconds_of_{name}": float(seconds) for name, seconds in starts}


def _environment(code: Path) -> float:
    """Seconds of `make env` in a fresh copy of the project."""
    code.mkdir()
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(
        ["cp", "--parents", "-t", str(code), *tracked.decode().rstrip("\0").split("\0")], cwd=ROOT, check=True
    )
    started = time.monotonic()
    subprocess.run(["make", "env"], cwd=code, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started
