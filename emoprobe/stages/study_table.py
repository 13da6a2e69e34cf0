"""From the tables of a study's experiments to its own tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from emoprobe.analysis.study import study_accuracy, study_outcomes, study_paired_tests
from emoprobe.config.experiment import Config
from emoprobe.results.layout import Layout
from emoprobe.results.tables import write_table


def tabulate_study(configs: Mapping[str, Config], results: Path, layout: Layout) -> None:
    """Write the tables across the experiments of a study."""
    write_table(layout, "study_accuracy", study_accuracy(configs, results))
    write_table(layout, "study_outcomes", study_outcomes(configs, results))
    write_table(layout, "study_paired_tests", study_paired_tests(configs, results))
