"""Object storage for activations."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar

from pydantic import Field, field_validator, model_validator

from emoprobe.config.section import Hidden, Section

SCHEMES = ("s3", "gs", "az", "file")


class Storage(Section):
    """A copy of the activations in object storage. Changing these keys recomputes nothing.

    Credentials come from the environment or the provider's credential chain, never from the configuration.
    """

    changes_results: ClassVar[bool] = False

    url: Annotated[str | None, Hidden] = Field(
        None,
        description="Destination of the activations: `s3://bucket/prefix`, `gs://…`, `az://…` or "
        "`file:///folder`; null: "
        "no copy. Each experiment has a folder with its name there.",
    )
    keep_local: bool = Field(
        True,
        description="Whether to keep the local tensors after they are pushed and verified. If not, each folder "
        "keeps its "
        "`metadata.json`, which says where they are.",
    )
    shard_samples: int = Field(
        256, ge=1, description="Minimum number of activation folders of one variant in a shard …"
    )
    shard_mib: int = Field(64, ge=1, le=4096, description="… and minimum size of a shard, in MiB.")
    part_mib: int = Field(
        8, ge=5, le=512, description="Size of a request that uploads or reads a part of a shard, in MiB."
    )
    concurrency: int = Field(32, ge=1, le=256, description="Requests in flight.")
    attempts: int = Field(8, ge=1, le=20, description="Attempts of one request; the wait between them grows to 15 s.")
    timeout: float = Field(300.0, gt=0, description="Timeout of one request in seconds.")

    @field_validator("url")
    @classmethod
    def _url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        scheme = url.partition("://")[0]
        if scheme not in SCHEMES or "://" not in url:
            raise ValueError(f"must begin with one of {', '.join(f'{name}://' for name in SCHEMES)}")
        if not re.fullmatch(r"\w+://[^\s?#@]*", url):
            raise ValueError("must not contain credentials, a query or a blank; credentials come from the environment")
        if scheme == "file" and not url.startswith("file:///"):
            raise ValueError("must be an absolute path; write file:///folder")
        if not url.partition("://")[2].strip("/"):
            raise ValueError("names no bucket or folder")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _needs_url(self) -> Storage:
        if self.url is None and not self.keep_local:
            raise ValueError("keep_local: false needs a url, or the activations would be lost")
        return self
