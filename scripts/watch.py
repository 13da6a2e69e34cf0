"""Watch a run from any shell, also one that has died: python -m scripts.watch --config config/config.yaml."""

import argparse
import time
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.results.layout import Layout
from emoprobe.workflow.progress import Progress, snapshot, token_rates
from server.pool.address import pool_status
from server.pool.run import address_path

MAX_FAILURES = 6


def frame(config: Config, progress: Progress, rates: dict[str, float], now: float) -> Group:
    """One frame of the view."""
    rows = Table(box=None, pad_edge=False)
    for title, justify in (
        ("variant", "left"),
        ("trajectories", "right"),
        ("", "left"),
        ("captures", "right"),
        ("", "left"),
    ):
        rows.add_column(title, justify=justify)  # type: ignore[arg-type]
    for row in progress.variants:
        bars = [ProgressBar(total=row.total, completed=done, width=18) for done in (row.trajectories, row.activations)]
        captured = f"{row.activations}/{row.total}" if config.capture.enabled else "off"
        rows.add_row(
            row.variant, f"{row.trajectories}/{row.total}", bars[0], captured, bars[1] if config.capture.enabled else ""
        )
    eta = "unknown" if progress.eta is None else _duration(progress.eta)
    last = "none yet" if progress.last_file is None else f"{_duration(now - progress.last_file)} ago"
    state = "no pool answers: nothing runs now" if progress.pool is None else f"pool {progress.pool['pid']}"
    head = Text(
        f"{config.experiment.name}   {progress.trajectory_rate:.2f} trajectories/s   "
        f"{progress.capture_rate:.2f} captures/s   ETA {eta}   last file {last}   {state}"
    )
    parts: list[Any] = [head, Text(), rows]
    workers = progress.pool["workers"] if progress.pool else []
    if workers:
        table = Table(box=None, pad_edge=False)
        for title in ("worker", "state", "in flight", "answered", "failed", "restarts", "tokens/s", "last error"):
            table.add_column(title, justify="left" if title in ("worker", "state", "last error") else "right")
        for worker in workers:
            error = (worker["error"] or "").splitlines()[:1]
            counts = [str(worker[key]) for key in ("in_flight", "served", "failures", "restarts")]
            table.add_row(worker["name"], worker["state"], *counts, f"{rates.get(worker['name'], 0.0):.0f}", *error)
        parts += [Text(), table]
    if progress.failures:
        parts.append(Text(f"\n{len(progress.failures)} failed, the last ones:"))
        parts += [Text(f"  {name}: {reason}"[:200]) for name, reason in progress.failures[:MAX_FAILURES]]
    return Group(*parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="config/config.yaml", help="the experiment's configuration")
    parser.add_argument("--once", action="store_true", help="print one frame and end")
    parser.add_argument("--seconds", type=float, default=2.0, help="between two frames")
    arguments = parser.parse_args()
    console = Console()
    try:
        config = load_config(arguments.config)
    except ConfigError as error:
        parser.exit(2, f"{error}\n")
    layout, path = Layout.of(config.experiment.name), address_path(config, Path(__file__).parents[1])

    def now_frame() -> Group:
        now = time.time()
        return frame(config, snapshot(layout, config, pool_status(path), now), token_rates(layout, config, now), now)

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
