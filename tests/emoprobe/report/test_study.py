"""The sentences of a study, and the links of its page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from emoprobe.analysis.behaviour import accuracy
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.analysis.study import study_accuracy, study_paired_tests
from emoprobe.config.files import parse_config
from emoprobe.report.study import study_statements
from emoprobe.results.layout import Layout
from emoprobe.results.tables import write_table
from emoprobe.stages.study import report_study
from tests.calibration.trajectories import Scene, simulate

MARGIN = 0.1


def test_every_sentence_is_about_something_else(tmp_path: Path) -> None:
    configs = {}
    for seed, name in enumerate(("first", "second")):
        configs[name] = parse_config({"experiment": {"name": name}, "model": {"source": name}})
        table = simulate(Scene(1319, (0.2, 0.5), 0.5), np.random.default_rng(seed))
        write_table(Layout.of(name, tmp_path), "paired_tests", paired_tests(table, MARGIN))
        write_table(Layout.of(name, tmp_path), "accuracy", accuracy(table))
    said = study_statements(study_paired_tests(configs, tmp_path))
    about = [statement.about for statement in said]
    assert {"accuracy:first/tone0-filler", "accuracy:second/tone0-filler"} <= set(about)
    assert len(set(about)) == len(about)
    study = Layout.of("study", tmp_path)
    write_table(study, "study_accuracy", study_accuracy(configs, tmp_path))
    write_table(study, "study_paired_tests", study_paired_tests(configs, tmp_path))
    report_study(study)
    link = "../first/explorer/index.html#?variant=tone0&amp;flip=any&amp;against=filler"
    # Of the figure, a sentence, and the rows of the table.
    assert study.report_html.read_text().count(f'href="{link}"') >= 3
    assert f'href="../{link}"' in study.figure("study_forest").read_text()
    assert all(statement.text.startswith(("first: ", "second: ")) for statement in said if statement.verdict != "note")
