"""From tables and figures to headline numbers and the page to read."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from emoprobe.config.experiment import Config
from emoprobe.report.figures import table_rules
from emoprobe.report.page import experiment_page
from emoprobe.report.summary import report
from emoprobe.results import atomic
from emoprobe.results.layout import Layout
from emoprobe.stages.analysis_code import analysis_code


def write_report(config: Config, layout: Layout, rules: Collection[str] | None = None) -> None:
    """Write `report.html`, then `report.json`, from the tables of some rules, by default those of the config."""
    rules = table_rules(config) if rules is None else rules
    values = report(config, layout, rules, partial(analysis_code, rules))
    atomic.write_text(layout.report_html, experiment_page(config, layout, values, rules))
    atomic.write_json(layout.report, values)
