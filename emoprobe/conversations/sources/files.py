"""Files of rows: JSON lines, CSV and Parquet, the first two also compressed by gzip."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

from emoprobe.config.errors import shown
from emoprobe.config.science.dataset import Dataset
from emoprobe.conversations.sources.data_source import DataError, DataSource, Kind, Row, pick
from emoprobe.text import filled_lines

SUFFIXES = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def is_file(source: str) -> bool:
    """Return whether a source names a file of rows, by the end of its name."""
    return source.endswith(SUFFIXES)


def paths(source: str) -> list[Path]:
    """The file, where it exists."""
    path = Path(source).expanduser()
    return [path] if path.is_file() else []


def open_file(dataset: Dataset, seed: int) -> DataSource:
    """Open a file of rows; the seed decides nothing here.

    Raises:
        DataError: it is missing, empty or cannot be read.
    """
    path = _existing(dataset)
    if path.suffix == ".parquet":
        return ParquetRows(dataset, path)
    return JsonLines(dataset, path) if path.name.removesuffix(".gz").endswith(".jsonl") else CsvRows(dataset, path)


def check(dataset: Dataset, seed: int) -> list[str]:
    """Return problems: a file that is missing or cannot be opened, missing columns, or too few rows."""
    try:
        path = _existing(dataset)
        if path.suffix == ".parquet":
            count = _count_rows(dataset, path)
        else:
            rows = open_file(dataset, seed)
            count = len(rows)
            rows.row(0)
    except DataError as error:
        return [str(error)]
    if count < dataset.samples:
        return [f"dataset.samples = {dataset.samples}: {dataset.source} has only {count} rows"]
    return []


def _existing(dataset: Dataset) -> Path:
    path = Path(dataset.source).expanduser()
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "does not exist"
        raise DataError(f"dataset.source = {shown(dataset.source)}: the file {path} {what}")
    return path


def _content(path: Path) -> bytes:
    """The bytes of a file of text, decompressed, without a byte order mark.

    Raises:
        DataError: it cannot be read, or is empty.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"dataset.source: {path} cannot be read ({reason})") from None
    if not content.strip():
        raise DataError(f"dataset.source: {path} is empty")
    return content.removeprefix(BYTE_ORDER_MARK)


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
        self._lines = list(filled_lines(_content(path)))
        if not self._lines:
            raise DataError(f"dataset.source: {path} is empty")

    def __len__(self) -> int:
        return len(self._lines)

    def row(self, position: int) -> Row:
        """The row at a position, from 0; blank lines are none."""
        return _parse(self._dataset, self._path, *self._lines[position])


class CsvRows:
    """A CSV file (RFC 4180): commas, double quotes, and the names of the columns in the first row; cells are text."""

    seeded = False

    def __init__(self, dataset: Dataset, path: Path) -> None:
        self._dataset, self._path = dataset, path
        try:
            text = _content(path).decode("utf-8")
            reader = csv.reader(io.StringIO(text, newline=""), strict=True)
            self._columns = next(reader)
            self._rows = [(reader.line_num, cells) for cells in reader if cells]
        except UnicodeError:
            raise DataError(
                f"dataset.source: {path} is not UTF-8 text; convert the file, as with iconv -t utf-8"
            ) from None
        except csv.Error as error:
            raise DataError(f"dataset.source: {path}: line {reader.line_num} is no CSV ({error})") from None
        if len(set(self._columns)) < len(self._columns):
            raise DataError(f"dataset.source: {path} names a column twice in its first row; name each once")
        if not self._rows:
            raise DataError(f"dataset.source: {path} has no rows below the names of its columns")

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, position: int) -> Row:
        """The row at a position, from 0; blank lines are none."""
        line, cells = self._rows[position]
        where = f"dataset.source: line {line} of {self._path}"
        if len(cells) != len(self._columns):
            raise DataError(
                f"{where} has {len(cells)} cells and the first row {len(self._columns)}; quote a cell that has a comma"
            )
        return pick(dict(zip(self._columns, cells, strict=True)), self._dataset, where)


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


KIND = Kind(f"a file that ends in {', '.join(SUFFIXES)}", is_file, open_file, check, paths)
