"""Parquet tables, written complete or not at all, with what each column means inside them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from emoprobe.results import atomic
from emoprobe.results.catalogue import TABLES, Kind, Table
from emoprobe.results.layout import Layout
from emoprobe.results.record import unreadable


def frame(table: Table, rows: list[dict[str, Any]], named: Mapping[str, Kind] | None = None) -> pd.DataFrame:
    """Rows as a table of the catalogue: its columns in their order, each of its type.

    Args:
        table: of the catalogue.
        rows: the rows.
        named: columns of the table's families, each with its type.

    Raises:
        ValueError: a row has a column that the catalogue does not know, or a value is of another type.
    """
    columns = table.with_named(named or {})
    unknown = {name for row in rows for name in row} - set(columns)
    if unknown:
        raise ValueError(f"table {table.name} has no columns {', '.join(sorted(unknown))}")
    data = pd.DataFrame(rows, columns=list(columns))
    return data.astype({name: column.kind for name, column in columns.items()})


def write_table(layout: Layout, name: str, table: pd.DataFrame) -> None:
    """Write a table of the catalogue at its place; the meanings of its columns go into the schema.

    Raises:
        ValueError: its columns are not those of the catalogue.
        OSError: it cannot be written.
    """
    named = {
        column: dtype
        for column, dtype in table.dtypes.astype(str).items()
        if any(str(column).startswith(start) for start in TABLES[name].families)
    }
    columns = TABLES[name].with_named(named)  # type: ignore[arg-type]
    if list(table.columns) != list(columns):
        raise ValueError(f"table {name}: has the columns {', '.join(table.columns)}, not {', '.join(columns)}")
    typed = table.astype({column: entry.kind for column, entry in columns.items()})
    arrow = pa.Table.from_pandas(typed, preserve_index=False)
    fields = [field.with_metadata({"description": columns[field.name].meaning}) for field in arrow.schema]
    buffer = io.BytesIO()
    pq.write_table(arrow.cast(pa.schema(fields, metadata=arrow.schema.metadata)), buffer)
    atomic.write_bytes(layout.table(name), buffer.getvalue())


def read_table(experiment: str | Path, name: str) -> pd.DataFrame:
    """Read a table of a finished experiment, with nullable types.

    Columns that the version which wrote it did not know are there without values, after the others.

    Args:
        experiment: folder of the experiment, or of a study.
        name: such as `trajectories` or `accuracy`.

    Raises:
        FileNotFoundError: there is no such table; the message lists those that are there.
        DamagedError: the file is damaged; the message names it.
    """
    path = Layout(Path(experiment)).table(name)
    if not path.exists():
        known = ", ".join(sorted(entry.stem for entry in path.parent.glob("*.parquet"))) or "none"
        raise FileNotFoundError(f"{path} does not exist (tables there: {known})")
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise unreadable(path, error) from None
    return completed(table, name)


def completed(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Return a table with every column of the catalogue: those that it lacks without values, after the others.

    Args:
        table: the table.
        name: of the catalogue; a table of another name is left as it is.
    """
    columns = TABLES[name].columns if name in TABLES else {}
    later = {column: entry for column, entry in columns.items() if column not in table}
    return table.assign(**{column: pd.Series(index=table.index, dtype=entry.kind) for column, entry in later.items()})
