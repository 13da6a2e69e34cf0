"""`metadata.json`: what is needed to run an experiment again, as far as its folder says it."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from emoprobe.results.layout import Layout
from emoprobe.results.record import OpenRecord


class ModelIdentity(OpenRecord):
    """The model that answered; null where it is not known."""

    id: str | None = None
    dtype: str | None = None
    revision: str | None = None


class RunMetadata(OpenRecord):
    """The fields of `metadata.json` that are read again."""

    timestamp: str | None = None
    model: ModelIdentity = ModelIdentity()
    random_seed: int | None = None
    prompt: dict[str, Any] = Field(default_factory=dict)
    sampling: dict[str, Any] = Field(default_factory=dict)
    package_versions: dict[str, str | None] = Field(default_factory=dict)
    git_commit: str | None = None

    @classmethod
    def of(cls, layout: Layout) -> RunMetadata:
        """Read the metadata of an experiment; all is unknown where it has none.

        Raises:
            DamagedError: the file is damaged.
        """
        return cls.read_file(layout.metadata) if layout.metadata.exists() else cls()
