"""Files of one's own: JSON lines and Parquet."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

from emoprobe.config.science.dataset import Dataset
from emoprobe.tasks.sources.source import DataError, Kind, Row, Source, pick
from emoprobe.text import filled_lines

SUFFIXES = (".jsonl", ".parquet")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def is_file(source: str) -> bool:
    """Whether a source names a file."""
    return source.endswith(SUFFIXES)


def paths(source: str) -> list[Path]:
    """The file, where it exists."""
    path = Path(source).expanduser()
    return [path] if path.is_file() else []


def open_file(dataset: Dataset, seed: int) -> Source:
    """Open a file of rows; the seed decides nothing here.

    Raises:
        DataError: it is missing, empty or cannot be read.
    """
    path = _existing(dataset)
    return JsonLines(dataset, path) if path.suffix == ".jsonl" else ParquetRows(dataset, path)


def check(dataset: Dataset, seed: int) -> list[str]:
    """Whether the file exists, has the columns and has rows enough; a million lines take a fraction of a second."""
    try:
        path = _existing(dataset)
        count = _count_lines(dataset, path) if path.suffix == ".jsonl" else _count_rows(dataset, path)
    except DataError as error:
        return [str(error)]
    if count < dataset.samples:
        return [f"dataset.samples = {dataset.samples}: {dataset.source} has only {count} rows"]
    return []


def _existing(dataset: Dataset) -> Path:
    path = Path(dataset.source).expanduser()
    if not path.is_file():
        raise DataError(f"dataset.source = {dataset.source!r}: the file {path} does not exist")
    return path


def _count_lines(dataset: Dataset, path: Path) -> int:
    """Rows of a JSON lines file, counted no further than the samples that are asked for; the first one is parsed."""
    try:
        with open(path, "rb") as file:
            lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
            first = next(lines, None)
            if first is None:
                raise DataError(f"dataset.source: {path} is empty")
            _parse(dataset, path, first[0], first[1].removeprefix(BYTE_ORDER_MARK) if first[0] == 1 else first[1])
            return 1 + sum(1 for _ in islice(lines, dataset.samples - 1))
    except OSError as error:
        raise DataError(f"dataset.source: {path}: {error.strerror or error}") from None


def _count_rows(dataset: Dataset, path: Path) -> int:
    """Rows of a Parquet file; its columns are told by its schema."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            schema, count = file.schema_arrow, int(file.metadata.num_rows)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"dataset.source: {path} is no readable Parquet file ({error})") from None
    pick({field.name: _fields(field.type) for field in schema}, dataset, f"dataset.source: {path}")
    return count


def _fields(kind: Any) -> Any:
    """The fields of a nested column's type as a mapping; None for a plain column."""
    import pyarrow

    return {field.name: _fields(field.type) for field in kind} if pyarrow.types.is_struct(kind) else None


class JsonLines:
    """A file with one JSON object a line. Only the drawn lines are parsed, so a million rows cost little."""

    seeded = False

    def __init__(self, dataset: Dataset, path: Path) -> None:
        self._dataset, self._path = dataset, path
        try:
            self._lines = list(filled_lines(path.read_bytes().removeprefix(BYTE_ORDER_MARK)))
        except OSError as error:
            raise DataError(f"dataset.source: {path}: {error.strerror or error}") from None
        if not self._lines:
            raise DataError(f"dataset.source: {path} is empty")

    def __len__(self) -> int:
        return len(self._lines)

    def row(self, position: int) -> Row:
        """The row at a position, from 0; blank lines are none."""
        return _parse(self._dataset, self._path, *self._lines[position])


class ParquetRows:
    """A Parquet file."""

    seeded = False

    def __init__(self, dataset: Dataset, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        self._dataset, self._path = dataset, path
        try:
            self._table = pyarrow.parquet.read_table(path)
        except (OSError, pyarrow.ArrowException) as error:
            raise DataError(f"dataset.source: {path} is no readable Parquet file ({error})") from None
        if not len(self._table):
            raise DataError(f"dataset.source: {path} is empty")

    def __len__(self) -> int:
        return len(self._table)

    def row(self, position: int) -> Row:
        """The row at a position, from 0."""
        where = f"dataset.source: row {position + 1} of {self._path}"
        try:
            row = self._table.slice(position, 1).to_pylist()[0]
        except UnicodeError as error:
            raise DataError(f"{where} holds text that is no UTF-8 ({error}); mend or remove the row") from None
        return pick(row, self._dataset, where)


def _parse(dataset: Dataset, path: Path, number: int, line: bytes) -> Row:
    where = f"dataset.source: line {number} of {path}"
    try:
        if b"\0" in line:  # JSON text has none, UTF-16 and UTF-32 are full of them
            raise UnicodeError
        row = json.loads(line.decode("utf-8"))
    except UnicodeError:
        raise DataError(f"{where} is not UTF-8 text; convert the file, as with iconv -t utf-8") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is no JSON ({error})") from None
    if not isinstance(row, dict):
        raise DataError(f"{where} is no JSON object")
    return pick(row, dataset, where)


KIND = Kind(f"a file that ends in {' or '.join(SUFFIXES)}", is_file, open_file, check, paths)
