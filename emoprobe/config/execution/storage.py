"""Object storage for activations."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from emoprobe.config.section import Hidden, Section

SCHEMES = ("s3", "gs", "az", "file")


class Storage(Section):
    """A copy of the activations in object storage. Nothing here changes a result, so no change here makes one again.

    Credentials come from the environment or the provider's own chain, never from here.
    """

    changes_results: ClassVar[bool] = False

    url: Annotated[str | None, Hidden] = Field(
        None,
        description="Where to push activations: `s3://bucket/prefix`, `gs://…`, `az://…` or `file:///folder`; null: "
        "nowhere. Each experiment has a folder of its name there.",
    )
    keep_local: bool = Field(
        True,
        description="Whether the tensors stay here once they are pushed and checked. If not, each folder keeps its "
        "`metadata.json`, which says where they are.",
    )
    shard_samples: int = Field(256, ge=1, description="Activation folders of one variant that go into one shard …")
    shard_mib: int = Field(64, ge=1, le=4096, description="… or more of them, until it has this size, MiB.")
    part_mib: int = Field(
        8, ge=5, le=512, description="Size of one request that sends or reads a part of a shard, MiB."
    )
    concurrency: int = Field(32, ge=1, le=256, description="Requests in flight.")
    attempts: int = Field(8, ge=1, le=20, description="Tries of one request; the waits between them grow to 15 s.")
    timeout: float = Field(300.0, gt=0, description="Seconds that one request may take.")

    @field_validator("url")
    @classmethod
    def _url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        scheme = url.partition("://")[0]
        if scheme not in SCHEMES or "://" not in url:
            raise ValueError(f"begins with none of {', '.join(f'{name}://' for name in SCHEMES)}")
        if not re.fullmatch(r"\w+://[^\s?#@]*", url):
            raise ValueError("has credentials, a query or a blank in it; credentials come from the environment")
        if scheme == "file" and not url.startswith("file:///"):
            raise ValueError("is no absolute path; write file:///folder")
        if not url.partition("://")[2].strip("/"):
            raise ValueError("names no bucket or folder")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _needs_url(self) -> Storage:
        if self.url is None and not self.keep_local:
            raise ValueError("keep_local: false needs a url to keep the activations at")
        return self
