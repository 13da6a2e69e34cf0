"""From the tables of a study to its figures and its page."""

from __future__ import annotations

from emoprobe.report.figures import FIGURES, figures_of
from emoprobe.report.figures.style import save_figure
from emoprobe.report.figures.view import View
from emoprobe.report.page import study_page
from emoprobe.report.study import study_report
from emoprobe.results import atomic
from emoprobe.results.layout import Layout


def report_study(layout: Layout) -> None:
    """Draw the figures of a study and write its page."""
    for name in figures_of("report_study"):
        save_figure(FIGURES[name].draw(View(layout)), layout.figure(name))
    values = study_report(layout)
    atomic.write_text(layout.report_html, study_page(layout, values))
    atomic.write_json(layout.report, values)
