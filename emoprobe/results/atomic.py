"""Files and directories that appear complete or not at all."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def write_bytes(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name beside its place, then move it there.

    A crash of the process leaves the old file or the new one. `fsync` makes that hold for a loss of power,
    too: without it, the rename may reach the disk before the bytes do.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text, see `write_bytes`."""
    write_bytes(path, text.encode())


def rewrite_text(path: Path, text: str) -> None:
    """Replace the content of a file and keep its date: for a change that makes nothing else out of date."""
    status = path.stat()
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        write_text(temporary, text)
        os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def to_json(value: Any, indent: int | None = 2) -> str:
    """JSON as every file of an experiment has it: UTF-8, keys in the given order, a newline at the end.

    Raises:
        ValueError: the value holds NaN or an infinity, which JSON does not have.
    """
    return json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False) + "\n"


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file, see `write_bytes`."""
    write_text(path, to_json(value))


@contextmanager
def directory(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path` that takes its place when the block ends without an error.

    An empty folder at `path` (Snakemake makes one for its outputs) is replaced in one step; a folder with
    files in it is moved aside first, so that a reader never sees half of it.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for entry in temporary.rglob("*"):
            if entry.is_file():
                with open(entry, "rb") as file:
                    os.fsync(file.fileno())
        try:
            os.rename(temporary, path)
        except OSError:
            old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
            os.rename(path, old)
            os.rename(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
