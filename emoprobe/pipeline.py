"""The stages from trajectories to a report, each from files of an experiment's folder to files in it.

A rule of the workflow runs one of them, `analyze` runs them all in a folder that anybody made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from emoprobe.analysis import behaviour, consistency, paired_tests, workers
from emoprobe.analysis.plan import analysis_plan
from emoprobe.analysis.study import study_accuracy, study_paired_tests
from emoprobe.analysis.trajectory_table import trajectory_table
from emoprobe.config.experiment import Config
from emoprobe.models.source import ModelCard
from emoprobe.models.tokens import count_tokens
from emoprobe.report.figures import FIGURES, figures_of
from emoprobe.report.figures.style import save_figure
from emoprobe.report.figures.view import View
from emoprobe.report.page import experiment_page, study_page
from emoprobe.report.study import study_report
from emoprobe.report.summary import report
from emoprobe.results import atomic
from emoprobe.results.layout import Layout
from emoprobe.results.tables import read_table, write_table
from emoprobe.tasks.variants import variant_texts


def write_plan(config: Config, layout: Layout) -> None:
    """Write what will be tested, before there is an answer."""
    directory = Path(ModelCard.read(layout.model).path)
    # A model that only others' servers hold has no tokenizer here.
    lengths = _text_lengths(config, directory) if directory.is_dir() else None
    atomic.write_json(layout.plan, analysis_plan(config, lengths).values())


def _text_lengths(config: Config, model: Path) -> dict[str, list[int]]:
    """Tokens of each text of each variant."""
    return {name: count_tokens(texts, model) for name in config.variants if (texts := variant_texts(config, name))}


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


def tabulate_study(configs: Mapping[str, Config], results: Path, layout: Layout) -> None:
    """Write the tables across the experiments of a study."""
    write_table(layout, "study_accuracy", study_accuracy(configs, results))
    write_table(layout, "study_paired_tests", study_paired_tests(configs, results))


def report_study(layout: Layout) -> None:
    """Draw the figures of a study and write its page."""
    for name in figures_of("report_study"):
        save_figure(FIGURES[name].draw(View(layout)), layout.figure(name))
    found = study_report(layout)
    atomic.write_text(layout.report_html, study_page(layout, found))
    atomic.write_json(layout.report, found)
