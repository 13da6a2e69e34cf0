"""Run benchmarks: python -m tests.benchmarks [generation stub planning capture probes steering storage slurm]."""

from __future__ import annotations

import sys

from tests.benchmarks import capture, generation, planning, probes, slurm, steering, storage, stub

ALL = {
    "stub": stub.run,
    "planning": planning.run,
    "probes": probes.run,
    "storage": storage.run,
    "capture": capture.run,
    "steering": steering.run,
    "generation": generation.run,
    "slurm": slurm.run,
}


def main() -> None:
    """Run the named benchmarks, or all."""
    unknown = [name for name in sys.argv[1:] if name not in ALL]
    if unknown:
        sys.exit(f"unknown benchmarks: {', '.join(unknown)} (known: {', '.join(ALL)})")
    for name in sys.argv[1:] or list(ALL):
        ALL[name]()


main()
