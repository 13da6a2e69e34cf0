"""Files and directories that appear complete or not at all."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class OccupiedError(OSError):
    """A folder that may not be replaced: it holds what the writer did not write."""


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
def directory(path: Path, replaces: Iterable[str] = (), *, durable: bool = True) -> Iterator[Path]:
    """Yield an empty folder beside `path` that takes its place when the block ends without an error.

    An empty folder at `path` (Snakemake makes one for its outputs) is replaced in one step. A folder with files is
    moved aside first, so that a reader never sees half of it, and removed file by file: what somebody else puts there
    meanwhile stays.

    Args:
        path: the folder to write.
        replaces: names of the files that a folder at `path` may hold and lose.
        durable: whether the files survive a loss of power after the block, which takes a few milliseconds for each.

    Raises:
        OccupiedError: something else is at `path` by the time that the block ends; it stays as it is.
    """
    replaces = frozenset(replaces)
    temporary = path.with_name(_temporary_name(path))
    temporary.mkdir(parents=True)
    try:
        yield temporary
        for entry in temporary.rglob("*") if durable else ():
            if entry.is_file():
                with open(entry, "rb") as file:
                    os.fsync(file.fileno())
        _place(temporary, path, replaces)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def remove_directory(path: Path, names: Iterable[str]) -> None:
    """Remove a folder that holds no more than files of these names; of another one, remove only these files.

    A folder that does not exist counts as removed.
    """
    for name in names:
        with suppress(OSError):
            (path / name).unlink()
    with suppress(OSError):
        path.rmdir()


def holds_only(path: Path, names: Collection[str]) -> bool:
    """Return whether a path is a folder, and no link to one, without anything but files of these names.

    Raises:
        FileNotFoundError: there is nothing at the path.
    """
    if not stat.S_ISDIR(path.lstat().st_mode):
        return False
    return all(entry.name in names and not entry.is_dir(follow_symlinks=False) for entry in os.scandir(path))


def _place(new: Path, path: Path, replaces: frozenset[str]) -> None:
    """Move a folder to a path whose folder, if there is one, may hold no more than `replaces`.

    Others may do the same at the same time: each look at the path is only a guess, and the moves decide.
    """
    aside: list[Path] = []
    while True:
        try:
            os.rename(new, path)  # replaces an empty folder, and nothing else
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        occupied = OccupiedError(errno.EEXIST, "holds something else", str(path))
        old = path.with_name(f"{_temporary_name(path)}.old")
        try:
            if not holds_only(path, replaces):
                raise occupied
            os.rename(path, old)
        except FileNotFoundError:
            continue
        if not holds_only(old, replaces):
            os.rename(old, path)
            raise occupied
        aside.append(old)
    for old in aside:
        remove_directory(old, replaces)


def _temporary_name(path: Path) -> str:
    return f".{path.name[:200]}.{uuid.uuid4().hex[:8]}"
