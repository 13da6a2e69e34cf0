"""From tables and figures to headline numbers and the page to read."""

from __future__ import annotations

from emoprobe.config.experiment import Config
from emoprobe.report.page import experiment_page
from emoprobe.report.summary import report
from emoprobe.results import atomic
from emoprobe.results.layout import Layout


def write_report(config: Config, layout: Layout) -> None:
    """Write `report.html`, then `report.json`."""
    found = report(config, layout)
    atomic.write_text(layout.report_html, experiment_page(layout, found))
    atomic.write_json(layout.report, found)
