"""What a table is: its name, what it is about, the rule that makes it, and its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["string", "Int64", "Float64", "float64", "boolean"]


@dataclass(frozen=True)
class Column:
    """A column: its pandas type (`float64` has NaN for null) and what it means."""

    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Table:
    """A Parquet table of an experiment; `rule` is the Snakemake rule that makes it."""

    name: str
    meaning: str
    rule: str
    columns: dict[str, Column]
