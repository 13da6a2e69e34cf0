"""Run benchmarks: python -m tests.benchmarks [generation stub planning capture probes steering]."""

from __future__ import annotations

import sys

from tests.benchmarks import capture, generation, planning, probes, steering, stub

ALL = {
    "stub": stub.run,
    "planning": planning.run,
    "probes": probes.run,
    "capture": capture.run,
    "steering": steering.run,
    "generation": generation.run,
}


def main() -> None:
    """Run the named benchmarks, or all."""
    unknown = [name for name in sys.argv[1:] if name not in ALL]
    if unknown:
        sys.exit(f"unknown benchmarks: {', '.join(unknown)} (known: {', '.join(ALL)})")
    for name in sys.argv[1:] or list(ALL):
        ALL[name]()


main()
