"""Data sets of the Hugging Face hub, or in its formats in a local directory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory

from emoprobe.config.errors import shown
from emoprobe.config.science.dataset import Dataset
from emoprobe.config.section import is_local
from emoprobe.conversations.sources.data_source import DataError, Kind, Row, is_here, pick
from emoprobe.conversations.sources.files import SUFFIXES
from emoprobe.text import first_line

# Short name → data set and its configuration.
SHORT_NAMES = {"gsm8k": ("openai/gsm8k", "main")}
_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def matches(source: str) -> bool:
    """Return whether a source is a short name, a local directory or an id of the hub."""
    return source in SHORT_NAMES or is_local(source) or _ID.fullmatch(source) is not None


def paths(source: str) -> list[Path]:
    """The files of a local directory."""
    directory = Path(source).expanduser()
    if not is_local(source) or not directory.is_dir():
        return []
    return sorted(path for path in directory.rglob("*") if path.is_file() and not path.name.startswith("."))


def check(dataset: Dataset, seed: int) -> list[str]:
    """Return problems: a local directory that is missing or empty; the hub is not asked."""
    where, path = f"dataset.source = {shown(dataset.source)}", Path(dataset.source).expanduser()
    name, _ = SHORT_NAMES.get(dataset.source, (dataset.source, None))
    if is_here(name):
        if Path(name).is_file():
            return [f"{where}: {_no_rows(Path(name))}"]
        return [f"{where}: {name} is a directory here, and an id of the hub otherwise; write ./{name}, or rename it"]
    if not is_local(dataset.source):
        return []
    if path.is_file():
        return [f"{where}: {_no_rows(path)}"]
    if not path.is_dir():
        return [f"{where}: the directory {path} does not exist"]
    if not paths(dataset.source):
        return [f"{where}: the directory {path} is empty; put a data set there"]
    return []


@contextmanager
def _plainly_named(directory: Path) -> Iterator[Path]:
    """A directory with the same files whose path has no bracket, which the `datasets` library takes for a pattern."""
    if "[" not in str(directory):
        yield directory
        return
    with TemporaryDirectory() as folder:
        for path in paths(str(directory)):
            link = Path(folder) / path.relative_to(directory)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(path)
        yield Path(folder)


def _no_rows(path: Path) -> str:
    return f"the file {path} is of no kind that is read; save it as one of {', '.join(SUFFIXES)}"


class HubRows:
    """A data set that the `datasets` library loads: from the hub, the cache of an earlier download, or a directory."""

    seeded = False

    def __init__(self, dataset: Dataset, seed: int) -> None:
        import datasets

        # `datasets` would take a directory of this name for the data set.
        if problems := check(dataset, seed):
            raise DataError(problems[0])
        path, name = SHORT_NAMES.get(dataset.source, (dataset.source, None))
        local = is_local(path)
        self._dataset = dataset
        self._path = path
        try:
            with _plainly_named(Path(path).expanduser().resolve()) if local else nullcontext(path) as readable:
                self._rows = datasets.load_dataset(
                    str(readable), dataset.config or name, split=dataset.split, revision=dataset.revision
                )
        except Exception as error:
            reason = first_line(error)
            place = "could not be read" if local else "could not be loaded from the Hugging Face hub"
            advice = (
                "Check dataset.config and dataset.split."
                if local
                else "Without a network, give the path of a .jsonl or .parquet file."
            )
            settings = f"config {dataset.config}, " if dataset.config else ""
            raise DataError(
                f"dataset.source: {path}, {settings}split {dataset.split}, {place}: {reason} {advice}"
            ) from error

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, position: int) -> Row:
        """The row at a position, from 0."""
        where = f"dataset.source: row {position + 1} of {self._path}"
        try:
            row = self._rows[position]
        except UnicodeError as error:
            raise DataError(f"{where} holds text that is no UTF-8 ({error}); mend or remove the row") from None
        return pick(row, self._dataset, where)


KIND = Kind(
    "gsm8k, a data set of the Hugging Face hub (OWNER/NAME), a directory with one (./NAME)",
    matches,
    HubRows,
    check,
    paths,
)
