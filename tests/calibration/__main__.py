"""Print how often each kind of sentence is false, how often a planted effect is told, and what intervals cover.

`python -m tests.calibration [--runs 400] [--only probes] [--processes 2] [--keep FILE]`. The exit status is 1 where a
figure is beyond what simulation error allows. A simulation in which more than 5 % of the runs have a false sentence of a
kind is repeated with five times as many.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from emoprobe.analysis.statistics import LEVEL
from tests.calibration import (
    behaviour,
    coverage,
    features,
    guesses,
    judges,
    mixtures,
    outcomes,
    preferences,
    probes,
    steering,
    survival,
    types,
)
from tests.calibration.rows import Row

PARTS = (
    "accuracy", "texts", "asks", "formats", "dependent", "mixtures", "stopping", "planted", "default run", "power",
    "noise", "probes", "outcomes", "types", "survival", "judges", "preferences", "guesses", "steering",
    "features", "coverage",
)  # fmt: skip
GRIDS = ("discordance_cells", "text_cells", "accuracy_cells")
SEED = 7
NEAR = 5  # times as many runs where false sentences are more frequent than they may be
HEADINGS = {
    "false": "Share of runs with a false sentence of a kind (at most 5 %)",
    "told": "Share of runs that tell a planted effect (at least 80 %)",
    "covered": "Share of 95 % intervals that hold the truth (at least 93 % everywhere, 93–97 % in the mean)",
}


def jobs(runs: int) -> dict[str, Callable[[], list[Row]]]:
    """Every simulation by its name."""
    found: dict[str, Callable[[], list[Row]]] = {}
    for name, scene in (behaviour.null_scenes() | behaviour.margin_scenes()).items():
        found[f"accuracy: {name}"] = partial(behaviour.rows, name, scene, runs, SEED)
    for name, scene in (behaviour.text_scenes() | behaviour.selected_scenes()).items():
        found[f"texts: {name}"] = partial(behaviour.rows, name, scene, runs, SEED)
    for name, scene in behaviour.asked_scenes().items():
        found[f"asks: {name}"] = partial(behaviour.rows, name, scene, runs, SEED)
    found["asks: estimates"] = partial(_asked_rows, 5 * runs)
    for name, (scene, within) in behaviour.format_scenes().items():
        found[f"formats: {name}"] = partial(behaviour.format_rows, name, scene, within, runs, SEED)
    for name, scene in behaviour.dependent_scenes().items():
        found[f"dependent: {name}"] = partial(behaviour.rows, name, scene, runs, SEED)
    for mixture in mixtures.MIXTURES:
        found[f"mixtures: {mixture}"] = partial(_mixture_rows, mixture, 5 * runs)
    for name, rule in behaviour.stopping_rules().items():
        found[f"stopping: {name}"] = partial(behaviour.stopping_rows, name, rule, runs, SEED)
    for name, (scene, comparison) in behaviour.planted_scenes().items():
        found[f"planted: {name}"] = partial(behaviour.planted_rows, name, scene, comparison, runs, SEED)
    for effect in (0.0, 0.05, 0.1, 0.15):
        found[f"default run: {100 * effect:g} points"] = partial(behaviour.default_rows, effect, runs, SEED)
    for number, (design, deviation) in enumerate(behaviour.DESIGNS):
        found[f"power: design {number + 1}"] = partial(behaviour.power_rows, design, deviation, runs, SEED)
    for name, scene in behaviour.noise_scenes().items():
        found[f"noise: {name}"] = partial(behaviour.noise_rows, name, scene, runs, SEED)
    for world in probes.WORLDS:
        found[f"probes: {world.name}"] = partial(probes.rows, world, runs)
    for name in (*outcomes.WORLDS, *outcomes.PLANTED):
        found[f"outcomes: {name}"] = partial(_outcome_rows, name, runs)
    for name in types.WORLDS:
        found[f"types: {name}"] = partial(_type_rows, name, runs)
    for name in (*survival.WORLDS, *survival.PLANTED):
        found[f"survival: {name}"] = partial(_survival_rows, name, runs)
    for name in judges.WORLDS:
        found[f"judges: {name}"] = partial(_judge_rows, name, runs)
    for name in preferences.WORLDS:
        found[f"preferences: {name}"] = partial(_preference_rows, name, runs)
    for name in guesses.WORLDS:
        found[f"guesses: {name}"] = partial(_guess_rows, name, runs)
    for place in steering.WORLDS:
        found[f"steering: {place.name}"] = partial(steering.rows, place, runs, SEED)
    for own in features.WORLDS:
        found[f"features: {own.name}"] = partial(features.rows, own, runs)
    for grid in GRIDS:
        found[f"coverage: {grid}"] = partial(coverage.rows, grid, 5 * runs, SEED)
    return found


def _outcome_rows(world: str, runs: int) -> list[Row]:
    return list(outcomes.rows(world, 5 * runs, SEED))


def _type_rows(world: str, runs: int) -> list[Row]:
    return list(types.rows(world, runs, SEED))


def _survival_rows(world: str, runs: int) -> list[Row]:
    return list(survival.rows(world, runs, SEED))


def _judge_rows(world: str, runs: int) -> list[Row]:
    return list(judges.rows(world, runs, SEED))


def _preference_rows(world: str, runs: int) -> list[Row]:
    return list(preferences.rows(world, runs, SEED))


def _guess_rows(world: str, runs: int) -> list[Row]:
    return list(guesses.rows(world, runs, SEED))


def _mixture_rows(mixture: str, runs: int) -> list[Row]:
    return list(mixtures.rows(mixture, runs, SEED))


def _asked_rows(runs: int) -> list[Row]:
    return list(mixtures.asked_rows(runs, SEED))


class Simulated(BaseModel):
    """A line of the file that keeps results: the rows of one simulation."""

    name: str
    runs: int
    rows: list[Row]


def simulated(name: str, runs: int) -> list[Row]:
    """The rows of a simulation, of more runs where these leave open whether a kind of sentence is false too often."""
    rows = jobs(runs)[name]()
    near = any(row.what == "false" and row.limit is not None and row.share > LEVEL for row in rows)
    return jobs(NEAR * runs)[name]() if near else rows


def run(names: list[str], runs: int, processes: int) -> Iterator[tuple[str, list[Row]]]:
    """Name and rows of each simulation, as they end."""
    with ProcessPoolExecutor(processes) as pool:
        futures = {pool.submit(simulated, name, runs): name for name in names}
        for future in as_completed(futures):
            yield futures[future], future.result()


def kept_rows(file: Path, runs: int) -> dict[str, list[Row]]:
    """Rows of the simulations of so many runs that a file keeps."""
    lines = file.read_text().splitlines() if file.exists() else []
    results = [Simulated.model_validate_json(line) for line in lines]
    return {result.name: result.rows for result in results if result.runs == runs}


def part_of(name: str, only: str) -> bool:
    """Return whether a simulation belongs to the part of that name or, if no part is called so, contains the text."""
    return name.partition(":")[0] == only if only in PARTS else only in name


def main() -> int:
    """Run everything and print it, then the worst of each kind."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=behaviour.FULL_RUNS, help="runs of each world")
    parser.add_argument("--processes", type=int, default=2, help="processes that share the worlds")
    parser.add_argument(
        "--only",
        default="",
        help=f"a part ({', '.join(PARTS)}), or any text of the names",
    )
    parser.add_argument(
        "--keep",
        type=Path,
        metavar="FILE",
        help="append the rows of each simulation to this file, and take from it what an interrupted run left there; "
        "begin a new one when code changes",
    )
    arguments = parser.parse_args()
    chosen = [name for name in jobs(arguments.runs) if part_of(name, arguments.only)]
    kept = kept_rows(arguments.keep, arguments.runs) if arguments.keep else {}
    rows = [row for name in chosen for row in kept.get(name, [])]
    for row in rows:
        print(row, flush=True)
    for name, new in run([name for name in chosen if name not in kept], arguments.runs, arguments.processes):
        if arguments.keep:
            with arguments.keep.open("a") as file:
                file.write(Simulated(name=name, runs=arguments.runs, rows=new).model_dump_json() + "\n")
        rows += new
        for row in new:
            print(row, flush=True)
    for what, heading in HEADINGS.items():
        own = sorted((row for row in rows if row.what == what), key=lambda row: (row.kind, row.world))
        print(f"\n{heading}" if own else "", flush=True)
        for kind, of_kind in groupby(own, key=lambda row: row.kind):
            group = list(of_kind)
            shares = np.array([row.share for row in group])
            worst = group[int(shares.argmax() if what == "false" else shares.argmin())]
            print(
                f"  {kind:28} {len(group):4} worlds, mean {shares.mean():.3f}, {'largest' if what == 'false' else 'least'} "
                f"{worst.share:.3f} ({worst.runs} runs; {'at most' if what == 'false' else 'at least'} "
                f"{worst.limit:.3f}): {worst.world}"
            )
    bad = [row for row in rows if not row.holds]
    print(f"\n{len(bad)} of {len(rows)} figures are beyond what simulation error allows")
    for row in bad:
        print(row)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
