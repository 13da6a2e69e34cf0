"""The stages from trajectories to a report, each from files of an experiment's folder to files in it.

A rule of the workflow runs one of them, `analyze` runs them all in a folder that anybody made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.numpy import save

from emoprobe.analysis import behaviour, consistency, paired_tests, workers
from emoprobe.analysis.plan import analysis_plan
from emoprobe.analysis.trajectory_table import find_pairs, trajectory_table
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.config.names import CONTROL
from emoprobe.config.science.variants import Variant
from emoprobe.models.source import ModelCard
from emoprobe.report.figures import FIGURES
from emoprobe.report.figures.style import save_figure
from emoprobe.report.figures.view import View
from emoprobe.report.page import experiment_page
from emoprobe.report.summary import report
from emoprobe.results import atomic
from emoprobe.results.activations import find_pairs as find_captured
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.tables import frame, read_table, write_table


def write_plan(config: Config, layout: Layout) -> None:
    """Write what will be tested, before there is an answer."""
    from emoprobe.analysis.probes.plan import probe_plan
    from emoprobe.models.tokens import text_tokens

    card = ModelCard.read(layout.model)
    lengths = text_tokens(config, Path(card.path)) if Path(card.path).is_dir() else None
    probes = probe_plan(config).values() if config.has_probes else None
    atomic.write_json(layout.plan, analysis_plan(config, lengths, probes).values())


def tabulate(config: Config, layout: Layout, pairs: Sequence[tuple[str, str]]) -> None:
    """Write the table of trajectories.

    Raises:
        DamagedError: a file of one is damaged.
    """
    write_table(layout, "trajectories", trajectory_table(layout.root, pairs, config))


def analyze_behaviour(config: Config, layout: Layout) -> None:
    """Write the tables of what the variants did."""
    table = read_table(layout.root, "trajectories")
    references, margin = config.analysis.references, config.analysis.margin
    write_table(layout, "accuracy", behaviour.accuracy(table))
    write_table(layout, "paired_tests", paired_tests.paired_tests(table, margin, references))
    write_table(layout, "characteristics", behaviour.characteristics(table, references))
    write_table(layout, "consistency", consistency.consistency(table))
    write_table(layout, "workers", workers.workers(table))


def draw(config: Config, layout: Layout, names: Sequence[str] = ()) -> None:
    """Draw figures by their names; without a name, all whose tables are there."""
    drawable = [name for name, figure in FIGURES.items() if all(layout.table(each).exists() for each in figure.tables)]
    view = View(layout, config)
    for name in names or drawable:
        save_figure(FIGURES[name].draw(view), layout.figure(name))


def write_report(config: Config, layout: Layout) -> None:
    """Write the headline numbers and the page to read."""
    found = report(config, layout)
    atomic.write_text(layout.report_html, experiment_page(layout, found))
    atomic.write_json(layout.report, found)
