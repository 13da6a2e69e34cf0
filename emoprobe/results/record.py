"""What every record of a result file is: typed fields, read and checked in one place."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator


class DamagedError(ValueError):
    """A result file that cannot be read; the message names it and says what to do."""

    def __init__(self, path: Path, reason: object, what: str = "it") -> None:
        super().__init__(f"{path} is damaged ({reason}); delete {what} and run again")


class MissingError(DamagedError):
    """A result file that is not there; the message names it and says what makes it."""

    def __init__(self, path: Path) -> None:
        ValueError.__init__(self, f"{path} is missing; run Snakemake again, which makes what is missing")


class UnreadableError(DamagedError):
    """A result file that is there and cannot be read: its content may be well, so nothing is to be deleted."""

    def __init__(self, path: Path, error: OSError) -> None:
        ValueError.__init__(self, f"{path} {unreadable_words(error, 'it')}")


def unreadable(path: Path, error: Exception) -> DamagedError:
    """Return the error to raise where a result file cannot be read."""
    if isinstance(error, FileNotFoundError):
        return MissingError(path)
    return UnreadableError(path, error) if isinstance(error, OSError) else DamagedError(path, error)


class Record(BaseModel):
    """The content of a result file, or a part of it. Fields that a later version added are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @classmethod
    def parse(cls, path: Path, content: str | bytes) -> Self:
        """Read a record out of the JSON text of a file.

        Raises:
            DamagedError: it is no JSON, or a field is missing or of the wrong type.
        """
        try:
            return cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise DamagedError(path, f"{place}: {first['msg']}" if place else first["msg"]) from None

    @classmethod
    def read_file(cls, path: Path) -> Self:
        """Read a record from its file.

        Raises:
            DamagedError: the file is missing (`MissingError`), unreadable (`UnreadableError`) or damaged.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise unreadable(path, error) from None
        return cls.parse(path, content)

    def values(self) -> dict[str, Any]:
        """Plain values in the order of the fields."""
        return self.model_dump(mode="json")


class OpenRecord(Record):
    """A record of a file that other programs may write: every field is optional, null means unknown, and a number may
    stand where text is expected.
    """

    model_config = ConfigDict(extra="allow", frozen=True, coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {key: value for key, value in values.items() if value is not None or key not in cls.model_fields}


def content_sha256(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of plain values: keys sorted, no spaces, UTF-8."""
    content = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()


def read_json(path: Path) -> Any:
    """Read a result file that has no record.

    Raises:
        DamagedError: it is missing (`MissingError`), or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


_BY_NUMBER = {
    errno.ENOSPC: "make room on the disk, then run again.",
    errno.EDQUOT: "make room in your quota, then run again.",
    errno.EACCES: "give this user the right to read and write it, then run again.",
    errno.EPERM: "give this user the right to read and write it, then run again.",
    errno.EROFS: "mount the file system for writing, or run elsewhere.",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or lower workers.requests, then run again.",
    errno.ENAMETOOLONG: "choose a shorter path for the results.",
    errno.EISDIR: "remove the folder that is in the place of a file, then run again.",
    errno.ENOTDIR: "remove the file that is in the place of a folder, then run again.",
}


def what_to_do(error: OSError) -> str:
    """Return what to do about an error of the operating system: run again only where that can help."""
    return _BY_NUMBER.get(error.errno or 0, "run again; where it comes back, check the file system.")


def unreadable_words(error: Exception, what: str) -> str:
    """Return why a file cannot be read and what to do: what is damaged is deleted, what is forbidden is not.

    Args:
        error: what reading it raised.
        what: what to delete where its content is damaged, such as "its folder".
    """
    if isinstance(error, OSError) and error.errno not in (None, errno.ENOENT):
        return f"cannot be read ({error.strerror}); {what_to_do(error).removesuffix('.')}"
    return f"is damaged ({getattr(error, 'strerror', None) or error}); delete {what} and run again"
