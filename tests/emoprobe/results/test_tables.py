"""Tables of earlier versions."""

from pathlib import Path

import pandas as pd

from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.tables import frame, read_table


def test_columns_that_an_earlier_version_did_not_know_are_empty(tmp_path: Path) -> None:
    table = frame(TABLES["paired_tests"], [{"variant": "joy", "reference": "control", "measure": "correct"}])
    layout = Layout(tmp_path)
    layout.table("paired_tests").parent.mkdir(parents=True)
    table.drop(columns=["value", "judge"]).assign(own=1).to_parquet(layout.table("paired_tests"))
    found = read_table(tmp_path, "paired_tests")
    assert set(found.columns) == {*table.columns, "own"}
    assert found[["value", "judge"]].isna().all(axis=None)
    pd.testing.assert_series_equal(found.dtypes[list(table.columns)], table.dtypes)
