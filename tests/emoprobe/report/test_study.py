"""The sentences of a study."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.analysis.study import study_paired_tests
from emoprobe.config.files import parse_config
from emoprobe.report.study import study_statements
from emoprobe.results.layout import Layout
from emoprobe.results.tables import write_table
from tests.calibration.trajectories import Scene, simulate

MARGIN = 0.1


def test_every_sentence_is_about_something_else(tmp_path: Path) -> None:
    configs = {}
    for seed, name in enumerate(("first", "second")):
        configs[name] = parse_config({"experiment": {"name": name}, "model": {"source": name}})
        table = simulate(Scene(1319, (0.2, 0.5), 0.5), np.random.default_rng(seed))
        write_table(Layout.of(name, tmp_path), "paired_tests", paired_tests(table, MARGIN))
    said = study_statements(study_paired_tests(configs, tmp_path))
    about = [statement.about for statement in said]
    assert {"accuracy:first/tone0-filler", "accuracy:second/tone0-filler"} <= set(about)
    assert len(set(about)) == len(about)
    assert all(statement.text.startswith(("first: ", "second: ")) for statement in said if statement.verdict != "note")
