"""From trajectories to tables of what the variants did."""

from __future__ import annotations

from emoprobe.analysis import behaviour
from emoprobe.analysis.format_noise import format_noise
from emoprobe.analysis.judges import judges
from emoprobe.analysis.labels import with_labels
from emoprobe.analysis.looks import registered_looks, weight_of
from emoprobe.analysis.outcomes import outcomes_of
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.config.experiment import Config
from emoprobe.results.layout import Layout
from emoprobe.results.preregistration import Preregistration
from emoprobe.results.tables import read_table, write_table


def analyze_behaviour(config: Config, layout: Layout) -> None:
    """Write the tables that follow from the table of trajectories, tested at the looks that the plan registered."""
    table = with_labels(config, read_table(layout.root, "trajectories"))
    references, margin, contrasts = config.analysis.references, config.analysis.margin, config.analysis.contrasts
    plan = Preregistration.read_file(layout.plan) if layout.plan.exists() else None
    if contrasts is None and plan is not None and plan.settings is None:
        contrasts = []  # a plan of version 0.2 has none
    weight = weight_of(registered_looks(config, plan), table["sample_id"].nunique())
    write_table(layout, "accuracy", behaviour.accuracy(table))
    outcomes = outcomes_of(config)
    write_table(layout, "paired_tests", paired_tests(table, margin, references, contrasts, weight, outcomes))
    write_table(layout, "outcomes", behaviour.outcome_means(table, outcomes))
    write_table(layout, "characteristics", behaviour.characteristics(table, references, weight))
    write_table(layout, "consistency", behaviour.consistency(table))
    write_table(layout, "format_noise", format_noise(table, references, weight))
    write_table(layout, "judges", judges(config, layout, table))
    write_table(layout, "workers", behaviour.workers(table))
