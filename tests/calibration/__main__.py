"""Print how often sentences on behaviour are false, how well intervals cover, and whether stated power holds.

`python -m tests.calibration [--runs 400] [--processes 2]`
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from tests.calibration import behaviour, coverage


def main() -> int:
    """Run everything and print it; the exit status is 1 where a figure is beyond what simulation error allows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=behaviour.FULL_RUNS, help="runs of each scene")
    parser.add_argument("--processes", type=int, default=2, help="processes that share the scenes")
    parser.add_argument("--only", default="", help="a part of the names of the scenes to run")
    arguments = parser.parse_args()
    bad = 0
    scenes = behaviour.null_scenes() | behaviour.margin_scenes()
    names = [name for name in scenes if arguments.only in name]
    limit = behaviour.allowed(arguments.runs)
    with ProcessPoolExecutor(arguments.processes) as pool:
        tallies = [pool.submit(behaviour.run_scene, scenes[name], arguments.runs, 7) for name in names]
        print(f"Share of {arguments.runs} runs with a false sentence of a kind (allowed: 0.05, simulated {limit:.3f})")
        for name, future in zip(names, tallies, strict=True):
            tally = future.result()
            bad += tally.worst() > limit
            kinds = ", ".join(f"{kind} {count / tally.runs:.3f}" for kind, count in sorted(tally.false.items()))
            covered = tally.covered / tally.intervals if tally.intervals else float("nan")
            print(f"  {name:54} worst {tally.worst():.3f}  intervals {covered:.3f}  {kinds or 'none'}", flush=True)
        if arguments.only:
            return int(bad > 0)
        print("Coverage of 95 % intervals")
        parts = ("discordance_cells", "text_cells", "accuracy_cells")
        grids = [pool.submit(_cells, part, 5 * arguments.runs) for part in parts]
        for part, future_cells in zip(parts, grids, strict=True):
            cells = future_cells.result()
            shares = np.array([cell.covered for cell in cells])
            least = cells[int(shares.argmin())]
            print(f"  {part:20} {len(cells)} cells: mean {shares.mean():.3f}, least {shares.min():.3f} at {least}")
        print("Power at the stated difference (80 % stated)")
        checks = pool.submit(behaviour.power_checks, arguments.runs, 3)
        for check in checks.result():
            bad += check.seen is not None and check.seen < behaviour.least_power(arguments.runs)
            seen = "not reachable" if check.seen is None else f"{check.seen:.3f}"
            print(
                f"  {check.design} texts {check.deviation:g}, accuracy {check.accuracy:g}, difficulty "
                f"{check.difficulty:g}: {check.detectable} → {seen}"
            )
    return int(bad > 0)


def _cells(part: str, runs: int) -> list[coverage.Cell]:
    return list(getattr(coverage, part)(runs, 1))


if __name__ == "__main__":
    sys.exit(main())
