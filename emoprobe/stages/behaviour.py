"""From trajectories to tables of what the variants did."""

from __future__ import annotations

from emoprobe.analysis import behaviour
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.config.experiment import Config
from emoprobe.results.layout import Layout
from emoprobe.results.tables import read_table, write_table


def analyze_behaviour(config: Config, layout: Layout) -> None:
    """Write the tables that follow from the table of trajectories."""
    table = read_table(layout.root, "trajectories")
    references, margin = config.analysis.references, config.analysis.margin
    write_table(layout, "accuracy", behaviour.accuracy(table))
    write_table(layout, "paired_tests", paired_tests(table, margin, references))
    write_table(layout, "characteristics", behaviour.characteristics(table, references))
    write_table(layout, "consistency", behaviour.consistency(table))
    write_table(layout, "workers", behaviour.workers(table))
