"""The parts of an experiment's report: behaviour always, probes, steering and features where the config has them."""

from __future__ import annotations

from collections.abc import Collection

from emoprobe.config.experiment import Config
from emoprobe.report.figures import FIGURES, Figure
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout


def table_rules(config: Config) -> list[str]:
    """Return the rules that make the tables of an experiment. Tables of other rules are left from another config."""
    probes = ["probe_activations"] if config.has_probes else []
    steering = ["tabulate_steering", "analyze_steering"] if config.steering.enabled else []
    features = ["measure_autoencoders", "analyze_features"] if config.features.enabled else []
    return ["tabulate_trajectories", "analyze_behaviour", *probes, *steering, *features]


def tables_there(layout: Layout, rules: Collection[str]) -> list[str]:
    """Return the names of the tables of some rules that exist."""
    return [name for name, table in TABLES.items() if table.rule in rules and layout.table(name).exists()]


def figures_of_tables(rules: Collection[str]) -> list[Figure]:
    """Return the figures that are drawn from tables of some rules alone."""
    return [figure for figure in FIGURES.values() if all(TABLES[table].rule in rules for table in figure.tables)]
