"""A proxy before a real object store, and an experiment to push."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from emoprobe.config.execution.storage import Storage
from emoprobe.results.layout import Layout
from emoprobe.storage.remote import forget_shards
from tests.faulty_proxy import FaultyProxy
from tests.seaweed import BUCKET, SeaweedFS, environment


@pytest.fixture
def proxy(seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy that the environment's credentials lead to."""
    proxy = FaultyProxy(seaweed.port)
    for name, value in environment(proxy.port).items():
        monkeypatch.setenv(name, value)
    forget_shards()
    yield proxy
    proxy.stop()


@pytest.fixture
def settings() -> Storage:
    """A folder of the bucket that nobody else uses; few attempts, so that what fails does so soon."""
    return Storage(url=f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}", shard_samples=4, shard_mib=1, part_mib=5, attempts=3)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """An experiment's folder."""
    root = tmp_path / "results" / "tiny"
    root.mkdir(parents=True)
    return Layout(root)
