"""Run benchmarks: python -m tests.benchmarks [NAME [OPTIONS OF THAT ONE] | NAME NAME …]."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tests.benchmarks import (
    capture,
    choice,
    explorer,
    first,
    generation,
    overhead,
    planning,
    probes,
    scale,
    slurm,
    steering,
    storage,
)

ALL: dict[str, Callable[[list[str]], None]] = {
    "scale": scale.run,
    "planning": planning.run,
    "probes": probes.run,
    "explorer": explorer.run,
    "storage": storage.run,
    "capture": capture.run,
    "choice": choice.run,
    "overhead": overhead.run,
    "steering": steering.run,
    "generation": generation.run,
    "slurm": slurm.run,
    "first": first.run,
}


def main() -> None:
    """Run the named benchmarks, or all. Options follow the name of a single one."""
    names = [word for word in sys.argv[1:] if word in ALL] or list(ALL)
    options = [word for word in sys.argv[1:] if word not in ALL]
    if options and (len(names) > 1 or sys.argv[1] not in ALL):
        sys.exit(f"unknown benchmarks: {', '.join(options)} (known: {', '.join(ALL)})")
    for name in names:
        ALL[name](options)


main()
