"""From steered trajectories and their scores to their table."""

from __future__ import annotations

from emoprobe.analysis.steering_table import steering_table
from emoprobe.results.layout import Layout
from emoprobe.results.tables import write_table
from emoprobe.steering.grid import SteeringGrid


def tabulate(grid: SteeringGrid, layout: Layout) -> None:
    """Write the table of what an experiment steers.

    Raises:
        DamagedError: a file is damaged.
    """
    write_table(layout, "steering", steering_table(layout, grid.trajectories, grid.directions))
