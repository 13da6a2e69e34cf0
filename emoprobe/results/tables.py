"""Parquet tables, written complete or not at all, with what each column means inside them."""

from __future__ import annotations

import io
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from emoprobe.results import atomic


def write_table(path: Path, table: pd.DataFrame, meanings: dict[str, str] | None = None) -> None:
    """Write a table; `meanings` go into the schema, field by field."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    if meanings:
        fields = [field.with_metadata({"description": meanings[field.name]}) for field in arrow.schema]
        arrow = arrow.cast(pa.schema(fields, metadata=arrow.schema.metadata))
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer)
    atomic.write_bytes(path, buffer.getvalue())


def read_table(path: Path) -> pd.DataFrame:
    """Read a table back with its nullable types."""
    return pd.read_parquet(path)
