"""What a table is: its name, what it is about, the rule that makes it, and its columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["string", "Int64", "Float64", "float64", "boolean"]


@dataclass(frozen=True)
class Column:
    """A column: its pandas type (`float64` has NaN for null) and what it means."""

    kind: Kind
    meaning: str


@dataclass(frozen=True)
class Table:
    """A Parquet table of an experiment; `rule` is the Snakemake rule that makes it.

    `families` are columns that the configuration names: the beginning of their names, and what they mean. They come
    after all others, each of a type of its own.
    """

    name: str
    meaning: str
    rule: str
    columns: dict[str, Column]
    families: dict[str, str] = field(default_factory=dict)

    def with_named(self, kinds: Mapping[str, Kind]) -> dict[str, Column]:
        """Return all columns, those of families included.

        Args:
            kinds: the columns that the configuration names, each with its type.

        Raises:
            ValueError: a column is of no family.
        """
        return self.columns | {name: Column(kind, self.meaning_of(name)) for name, kind in kinds.items()}

    def meaning_of(self, name: str) -> str:
        """Return what a column means, also one of a family.

        Raises:
            ValueError: the table can have no such column.
        """
        if name in self.columns:
            return self.columns[name].meaning
        for start, meaning in self.families.items():
            if name.startswith(start):
                return meaning
        raise ValueError(f"table {self.name} has no column {name}")
