"""The small files of an experiment that are there: whether they are whole, cheap enough for a dry run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from emoprobe.results.layout import Layout
from emoprobe.results.metadata import RunMetadata
from emoprobe.results.preregistration import Preregistration
from emoprobe.results.record import DamagedError, Record, read_json, unreadable

MAX_END = 64  # bytes at the end of a file in which its last word is looked for


class Verification(Record):
    """`verified.json`: how many trajectories were checked, and what is wrong, one line each, with the file and what to
    do.

    `unhashed` of them recorded no hashes, as in version 0.2: their files were only compared with each other.
    """

    checked: int
    problems: list[str]
    unhashed: int = 0


def check_records(layout: Layout) -> list[str]:
    """What is wrong with the records, tables and figures of an experiment; of the large ones only the end is read."""
    readers: dict[Path, Callable[[Path], Any]] = {
        layout.model: _with_keys("source", "path"),
        layout.plan: Preregistration.read_file,
        layout.metadata: RunMetadata.read_file,
        layout.resolved_json: _with_keys("experiment"),
        layout.manifest: read_json,
        layout.shards: read_json,
        layout.pushed: read_json,
        layout.pulled: read_json,
        layout.verified: Verification.read_file,
        layout.report: _with_keys("statements"),
    }
    problems = problems_of((path, read) for path, read in readers.items())
    ends = [(path, b"PAR1") for path in sorted(layout.table("any").parent.glob("*.parquet"))]
    ends += [(path, b"</svg>") for path in sorted(layout.figure("any").parent.glob("*.svg"))]
    return problems + problems_of((path, _ending(end)) for path, end in [*ends, (layout.report_html, b"</html>")])


def problems_of(files: Iterable[tuple[Path, Callable[[Path], Any]]]) -> list[str]:
    """One line for each file that is there and cannot be read."""
    found = []
    for path, read in files:
        try:
            if path.exists():
                read(path)
        except DamagedError as error:
            if path.exists():  # Snakemake may have removed it meanwhile, to make it again
                found.append(str(error))
    return found


def _with_keys(*keys: str) -> Callable[[Path], Any]:
    def read(path: Path) -> None:
        values = read_json(path)
        missing = [key for key in keys if not isinstance(values, dict) or key not in values]
        if missing:
            raise DamagedError(path, f"it lacks {', '.join(missing)}")

    return read


def _ending(end: bytes) -> Callable[[Path], Any]:
    def read(path: Path) -> None:
        try:
            with open(path, "rb") as file:
                file.seek(max(0, path.stat().st_size - MAX_END))
                content = file.read()
        except OSError as error:
            raise unreadable(path, error) from None
        if not content.rstrip().endswith(end):
            raise DamagedError(path, f"it does not end with {end.decode()}")

    return read
