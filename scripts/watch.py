"""Watch a run from any shell, also one that has died: python -m scripts.watch --config config/config.yaml."""

import argparse
import time
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_study
from emoprobe.results.layout import RESULTS
from emoprobe.workflow.data_checks import with_own_ids
from emoprobe.workflow.progress import ExperimentProgress, FileCount, PlanProgress, snapshot, token_rates
from server.deploy.deployment import follow
from server.pool.address import FleetStatus, PoolStatus, pool_status
from server.pool.run import address_path

MAX_FAILURES = 6
Bar = ProgressBar | str


def frame(progress: PlanProgress, pool: PoolStatus | None, rates: dict[str, float]) -> Group:
    """One frame of the view: how far everything is, what the servers do, what failed.

    Args:
        progress: the plan's files.
        pool: what the pool says; None where none answers.
        rates: generated tokens per second of each worker.
    """
    parts: list[RenderableType] = [_head(progress, pool), Text(), _files(progress)]
    asked = {"measurements by teacher forcing": "outcomes", "judgements": "judgements"}
    asked = {
        title: name for title, name in asked.items() if any(getattr(one, name).total for one in progress.experiments)
    }
    if asked:
        parts += [Text(), _by_experiment(progress, "graders", asked)]
    if any(experiment.steered.total for experiment in progress.experiments):
        parts += [Text(), _by_experiment(progress, "steering", {"trajectories": "steered", "scores": "scores"})]
    if any(experiment.tokens.total for experiment in progress.experiments):
        parts += [Text(), _by_experiment(progress, "features", {"captures of every token": "tokens"})]
    if pool is not None and pool["fleets"]:
        parts += [Text(), _servers(pool["fleets"], rates)]
    failures = [failure for experiment in progress.experiments for failure in _failures(experiment, progress)]
    if failures:
        parts.append(Text(f"\n{len(failures)} failed, the last ones:"))
        parts += [Text(f"  {line}"[:200]) for line in failures[:MAX_FAILURES]]
    return Group(*parts)


def _head(progress: PlanProgress, pool: PoolStatus | None) -> Text:
    names = [experiment.name for experiment in progress.experiments]
    eta = "unknown" if progress.eta is None else _duration(progress.eta)
    last = "none yet" if progress.last_file is None else f"{_duration(progress.now - progress.last_file)} ago"
    state = "no pool answers: nothing runs now" if pool is None else f"pool {pool['pid']}"
    return Text(
        f"{names[0] if len(names) == 1 else f'{len(names)} experiments'}   "
        f"{progress.trajectory_rate:.2f} trajectories/s   {progress.capture_rate:.2f} captures/s   ETA {eta}   "
        f"last file {last}   {state}"
    )


def _files(progress: PlanProgress) -> Table:
    """A row a variant; with several experiments a row an experiment."""
    several = len(progress.experiments) > 1
    table = Table(box=None, pad_edge=False)
    table.add_column("experiment" if several else "variant", overflow="fold")  # a name is never cut off
    for title in ("trajectories", "captures"):
        table.add_column(title, justify="right")
        table.add_column("")
    for experiment in progress.experiments:
        if several:
            table.add_row(experiment.name, *_bar(experiment.trajectories), *_bar(experiment.activations))
            continue
        for variant in experiment.variants:
            table.add_row(variant.variant, *_bar(variant.trajectories), *_bar(variant.activations))
    return table


def _by_experiment(progress: PlanProgress, title: str, columns: dict[str, str]) -> Table:
    """A row an experiment that has such files; `columns` are titles, with the names of what they count."""
    table = Table(box=None, pad_edge=False)
    table.add_column(title)
    for column in columns:
        table.add_column(column, justify="right")
        table.add_column("")
    for experiment in progress.experiments:
        made = [getattr(experiment, name) for name in columns.values()]
        if any(each.total for each in made):
            table.add_row(experiment.name, *(cell for each in made for cell in _bar(each)))
    return table


def _bar(made: FileCount) -> tuple[str, Bar]:
    if not made.total:
        return "off", ""
    return f"{made.count}/{made.total}", ProgressBar(total=made.total, completed=made.count, width=18)


def _servers(fleets: list[FleetStatus], rates: dict[str, float]) -> Table:
    """A row a server, those that stand first; a row for each model that waits for its turn."""
    table = Table(box=None, pad_edge=False)
    for title in ("server", "model", "what it does"):
        table.add_column(title)
    for title in ("in flight", "waiting", "answered", "failed", "restarts", "tokens/s"):
        table.add_column(title, justify="right")
    table.add_column("log")
    for fleet in sorted(fleets, key=lambda fleet: not fleet["standing"]):
        waiting = str(fleet["waiting_for_turn"] + fleet["waiting_for_room"])
        if not fleet["standing"] and not any(worker["error"] for worker in fleet["workers"]):
            words = "waits for its turn" if fleet["waiting_for_turn"] else "stopped: no request needs it"
            table.add_row(fleet["kind"], fleet["model"], words, "", waiting)
            continue
        for worker in fleet["workers"]:
            counts = [str(worker["served"]), str(worker["failures"]), str(worker["restarts"])]
            rate = f"{rates.get(worker['name'], 0.0):.0f}" if fleet["standing"] else ""
            note = worker["log_line"] or (worker["error"] or "").partition("\n")[0]
            table.add_row(
                worker["name"], fleet["model"], worker["phase"], str(worker["in_flight"]), waiting, *counts, rate, note
            )
            waiting = ""  # requests wait for any of them
    return table


def _failures(experiment: ExperimentProgress, progress: PlanProgress) -> list[str]:
    prefix = f"{experiment.name}: " if len(progress.experiments) > 1 else ""
    return [f"{prefix}{name}: {reason}" for name, reason in experiment.failures]


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def load_plan(path: str) -> dict[str, Config]:
    """The experiments of the file of a study or of one experiment, by name.

    Raises:
        ConfigError: the file cannot be read.
    """
    return with_own_ids(follow(load_study(path))).configs


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="config/config.yaml", help="file of the experiment or study")
    parser.add_argument("--once", action="store_true", help="print one frame and end")
    parser.add_argument("--seconds", type=float, default=2.0, help="between two frames")
    arguments = parser.parse_args()
    console = Console()
    try:
        configs = load_plan(arguments.config)
    except ConfigError as error:
        parser.exit(2, f"{error}\n")
    path = address_path(configs, Path(__file__).parents[1])

    def now_frame() -> Group:
        now = time.time()
        return frame(snapshot(configs, RESULTS, now), pool_status(path), token_rates(configs, RESULTS, now))

    if arguments.once:
        console.print(now_frame())
        return
    with Live(now_frame(), console=console, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(arguments.seconds)
                live.update(now_frame(), refresh=True)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
