"""From trajectories to their table."""

from __future__ import annotations

from collections.abc import Iterable

from emoprobe.analysis.trajectory_table import trajectory_table
from emoprobe.config.experiment import Config
from emoprobe.results.layout import Layout
from emoprobe.results.tables import write_table


def tabulate(config: Config, layout: Layout, pairs: Iterable[tuple[str, str]]) -> None:
    """Write the table of the trajectories of some pairs.

    Raises:
        DamagedError: a file of one is damaged.
    """
    write_table(layout, "trajectories", trajectory_table(layout.root, pairs, config))
