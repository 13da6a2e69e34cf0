"""Data sets of Hugging Face, CSV and LaTeX."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from emoprobe.analysis.trajectory_table import load_trajectories
from emoprobe.command.main import main
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.tables import frame, write_table
from emoprobe.results.trajectory import Trajectory
from tests.emoprobe.exchange.test_inspect import experiment

NASTY = '50 % & $x_1$ {a}~b^c\\d # \x1b[31m<b>\n\nnext, "quoted" é'


def test_a_data_set_is_loaded_by_datasets_and_imported_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from datasets import load_dataset

    monkeypatch.setattr("emoprobe.exchange.export.BATCH", 3)
    ours, target = experiment(tmp_path / "ours"), tmp_path / "data set"
    assert main(["export", str(ours), "--format", "dataset", "-o", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    rows = load_dataset(str(target), split="train", cache_dir=str(tmp_path / "cache"))
    table = load_trajectories(ours)
    assert rows.column_names == [*TABLES["trajectories"].columns, "outcome_apology", "outcome_sentiment", "messages"]
    assert rows["sample_id"] == list(table["sample_id"])
    assert rows["correct"] == [None if pd.isna(value) else bool(value) for value in table["correct"]]
    assert rows[0]["messages"][1]["content"] == "control\n\nQuestion 1 é\u2028?"
    assert rows[0]["messages"][-1]["reasoning_content"] == "Hm.\n"

    card = (target / "README.md").read_text()
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["configs"][0]["data_files"] == [{"split": "train", "path": "data/train.parquet"}]
    assert "8 conversations of me/mine on 2 questions" in card
    assert len(re.findall(r"^\| `", card, re.MULTILINE)) == len(rows.column_names)

    assert main(["import", str(target / "data/train.parquet"), "-o", str(tmp_path / "back")]) == 0
    again = load_trajectories(tmp_path / "back")
    for column in ("variant", "sample_id", "draw", "group", "question", "gold", "correct", "completion", "truncated"):
        assert list(again[column].astype("object").fillna("-")) == list(table[column].astype("object").fillna("-")), (
            column
        )
    for path in ours.glob("*/*/trajectory.jsonl"):
        folder = path.parent.relative_to(ours)
        assert Trajectory.read(tmp_path / "back" / folder).messages == Trajectory.read(ours / folder).messages
    assert main(["export", str(ours), "--format", "dataset", "-o", str(target)]) == 1
    assert "exists and is not empty" in capsys.readouterr().err


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    folder = tmp_path / "tables of mine"
    row = {
        "variant": "a_b",
        "sample_id": "q_1",
        "draw": 1,
        "completion": NASTY,
        "seconds": 1 / 3,
        "failed_attempts": "[]",
    }
    write_table(Layout(folder), "trajectories", frame(TABLES["trajectories"], [row]))
    return folder


def test_csv_holds_every_cell(tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out/trajectories.csv"
    command = ["export", str(tables), "--format", "csv", "--table", "trajectories", "-o", str(path)]
    assert main(command) == 0
    with path.open(newline="", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert list(row) == list(TABLES["trajectories"].columns)
    assert row["completion"] == NASTY
    assert float(row["seconds"]) == 1 / 3
    assert row["correct"] == ""
    assert main(command) == 1
    assert "trajectories.csv exists" in capsys.readouterr().err


def test_latex_is_escaped_and_has_booktabs(tables: Path, tmp_path: Path) -> None:
    path = tmp_path / "trajectories.tex"
    assert main(["export", str(tables), "--format", "latex", "--table", "trajectories", "-o", str(path)]) == 0
    text = path.read_text()
    body = text.split("\\midrule\n")[1].split("\n\\bottomrule")[0]
    assert "\\toprule" in text
    assert "\\usepackage{booktabs}" in text
    assert "50 \\% \\& \\$x\\_1\\$ \\{a\\}" in body
    assert "sample\\_id" in text
    assert "\n" not in body  # one row, without the blank line of the text
    assert "\x1b" not in text
    assert " 0.3333 " in body
    assert re.search(r"(?<!\\)[%#$_]", body) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "csv"], "--table is needed with --format csv"),
        (["--format", "inspect", "--table", "accuracy"], "--table is not used with --format inspect"),
        (["--format", "latex", "--table", "nothing"], "nothing.parquet does not exist (tables there: trajectories)"),
        (["--format", "dataset"], "holds no trajectory"),
        (["--format", "inspect"], "holds no trajectory"),
    ],
)
def test_errors(
    tables: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert main(["export", str(tables), *options, "-o", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
