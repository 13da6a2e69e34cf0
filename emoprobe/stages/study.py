"""From the tables of a study's experiments to its own tables and its page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from emoprobe.analysis.study import study_accuracy, study_paired_tests
from emoprobe.config.experiment import Config
from emoprobe.report.figures import FIGURES, figures_of
from emoprobe.report.figures.style import save_figure
from emoprobe.report.figures.view import View
from emoprobe.report.page import study_page
from emoprobe.report.study import study_report
from emoprobe.results import atomic
from emoprobe.results.layout import Layout
from emoprobe.results.tables import write_table


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
