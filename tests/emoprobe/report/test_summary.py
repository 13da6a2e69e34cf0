"""The headline numbers of a folder that has its tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from emoprobe.analysis.behaviour import accuracy, consistency
from emoprobe.analysis.paired_tests import paired_tests
from emoprobe.analysis.preregistration import analysis_plan
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.report.closing import summary_text
from emoprobe.report.figures import figures_of_tables, table_rules, tables_there
from emoprobe.report.summary import report
from emoprobe.results import atomic
from emoprobe.results.catalogue import TABLES, tables_of
from emoprobe.results.layout import Layout
from emoprobe.results.statement import Statement
from tests.calibration.trajectories import Scene, simulate


def test_a_report_holds_statements_with_their_numbers(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    table = simulate(Scene(64, (0.95, 0.5), 0.3, texts=24), np.random.default_rng(0))
    table["sample_id"] = table["sample_id"].astype("string")
    table["completion"] = "Answer: 5"
    layout.table("accuracy").parent.mkdir(parents=True)
    tables = {
        "trajectories": table,
        "accuracy": accuracy(table),
        "paired_tests": paired_tests(table, 0.1),
        "consistency": consistency(table),
        "workers": table.iloc[:0][["variant"]],
    }
    for name, content in tables.items():
        content.to_parquet(layout.table(name))
    layout.metadata.write_text(json.dumps({"experiment_name": "here", "model": {"id": "tiny"}}))
    found = report(Config(), layout)
    said = [Statement.model_validate(entry) for entry in found["statements"]]
    assert [one.about for one in said[:2]] == ["accuracy:negative-positive", "accuracy:tone0-filler"]
    assert said[1].verdict == "different"
    assert any(entry.about == "data:plan" and "no plan" in entry.text for entry in said)
    assert found["plan_sha256"] is None
    atomic.write_json(layout.report, found)
    text = summary_text(layout.report)
    assert "different: Tone0 raises strict accuracy" in " ".join(text.split())

    plan = analysis_plan(Config())
    atomic.write_json(layout.plan, plan.values())
    again = report(Config(), layout)
    assert again["plan_sha256"] == plan.sha256
    assert any("deviates from its plan" in entry["text"] for entry in again["statements"])


def test_tables_that_are_left_from_another_config_are_no_part_of_the_report(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    for name in TABLES:
        layout.table(name).parent.mkdir(parents=True, exist_ok=True)
        layout.table(name).touch()
    off = {"enabled": False}
    without = parse_config({"capture": off})
    assert set(tables_there(layout, table_rules(without))) == {
        *tables_of("tabulate_trajectories"), *tables_of("analyze_behaviour"),
    }  # fmt: skip
    assert {figure.part for figure in figures_of_tables(table_rules(without))} == {"Behaviour"}
    assert "probe_tests" in tables_there(layout, table_rules(parse_config({})))
    assert "Probes" in {figure.part for figure in figures_of_tables(table_rules(parse_config({})))}
