"""What every kind of data set offers: rows by their position, and a check that a plan can afford."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from emoprobe.config.science.dataset import Dataset
from emoprobe.config.section import is_local

MAX_PATH = 4096  # bytes, of Linux


class DataError(ValueError):
    """A data set that cannot be used; the message names the key, says where and why."""


@dataclass(frozen=True)
class Row:
    """One row as its source holds it, not yet checked; `source` is what the sample's file keeps of it."""

    question: Any
    answer: Any
    source: dict[str, Any] = field(default_factory=dict)
    group: str | None = None
    choices: Any = None
    id: Any = None


class DataSource(Protocol):
    """An opened data set.

    `seeded` says that the rows themselves follow from the seed, so that they are drawn in their own order.
    """

    seeded: bool

    def __len__(self) -> int: ...

    def row(self, position: int) -> Row:
        """The row at a position, from 0.

        Raises:
            DataError: it cannot be read, or lacks a column.
        """
        ...


@dataclass(frozen=True)
class Kind:
    """A kind of source: which names it answers to, how it is opened, and what a plan can find wrong with it.

    Both functions get the experiment's seed. `open` raises DataError; `check` returns one line a problem and downloads
    nothing. `paths` lists the local files whose content decides what is drawn.
    """

    accepted: str
    matches: Callable[[str], bool]
    open: Callable[[Dataset, int], DataSource]
    check: Callable[[Dataset, int], list[str]]
    paths: Callable[[str], list[Path]] = lambda source: []


def is_here(source: str) -> bool:
    """Return whether a source that is not written as a path names a file or directory of the working directory."""
    return not is_local(source) and "\0" not in source and len(source) < MAX_PATH and Path(source).exists()


def paths_sha256(paths: list[Path]) -> str:
    """Hash of the names and contents of some files."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\0".encode())
    return digest.hexdigest()


def pick(row: Mapping[str, Any], dataset: Dataset, where: str) -> Row:
    """The columns of a row that the configuration names; `answer.value` is the field `value` of the column `answer`.

    Raises:
        DataError: the row lacks one; the message begins with `where` and names the key.
    """
    values: dict[str, Any] = {}
    for key in ("question", "answer", "choices", "group", "id"):
        column = getattr(dataset, key)
        if column is None:
            continue
        try:
            values[key] = _column(row, column)
        except KeyError:
            raise DataError(
                f"{where} has no column {column!r}; name the column of the {key} in dataset.{key} "
                f"(columns: {', '.join(_columns(row))})"
            ) from None
    answer, group = values.get("answer"), values.get("group")
    solution = {"solution": str(answer)} if isinstance(answer, str) else {}
    named = None if group is None else str(group)
    return Row(values["question"], answer, solution, named, values.get("choices"), values.get("id"))


def _column(row: Mapping[str, Any], column: str) -> Any:
    if column in row:
        return row[column]
    value: Any = row
    for step in column.split("."):
        if not isinstance(value, Mapping) or step not in value:
            raise KeyError(column)
        value = value[step]
    return value


def _columns(row: Mapping[str, Any]) -> list[str]:
    """The names of all columns, those of nested ones with their path."""
    names = []
    for name, value in row.items():
        names += [f"{name}.{inner}" for inner in _columns(value)] if isinstance(value, Mapping) else [str(name)]
    return names
