"""Data sources of questions. Each kind of source is one module and one entry in `KINDS`."""

from __future__ import annotations

from emoprobe.config.errors import shown
from emoprobe.config.science.dataset import Dataset
from emoprobe.conversations.sources import files, hub, reasoning_gym
from emoprobe.conversations.sources.data_source import DataError, DataSource, Kind, Row, is_here

__all__ = ["KINDS", "DataError", "DataSource", "Kind", "Row", "check_source", "kind_of", "open_source"]

KINDS = (reasoning_gym.KIND, files.KIND, hub.KIND)


def kind_of(source: str) -> Kind:
    """Return the kind of a source by its name.

    Raises:
        DataError: no kind accepts the name.
    """
    for kind in KINDS:
        if kind.matches(source):
            return kind
    accepted = ", ".join(kind.accepted for kind in KINDS)
    if is_here(source):
        raise DataError(f"dataset.source = {shown(source)}: is here, but of no kind that is read; must be {accepted}")
    raise DataError(f"dataset.source = {shown(source)}: must be {accepted}")


def open_source(dataset: Dataset, seed: int) -> DataSource:
    """Open a data set by its source.

    Raises:
        DataError: there is no such source, file or column, or it cannot be read.
    """
    return kind_of(dataset.source).open(dataset, seed)


def check_source(dataset: Dataset, seed: int) -> list[str]:
    """Return the problems of a data set that show quickly and offline, one line each."""
    try:
        return kind_of(dataset.source).check(dataset, seed)
    except DataError as error:
        return [str(error)]
