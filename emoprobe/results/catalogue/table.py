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
        meanings = {
            name: next((meaning for start, meaning in self.families.items() if name.startswith(start)), None)
            for name in kinds
        }
        if unknown := sorted(name for name, meaning in meanings.items() if meaning is None):
            raise ValueError(f"table {self.name} has no columns {', '.join(unknown)}")
        return self.columns | {name: Column(kinds[name], meaning) for name, meaning in meanings.items() if meaning}
