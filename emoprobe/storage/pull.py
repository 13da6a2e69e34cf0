"""Pull: the activations that are in the bucket and not here, each checked before it has its name."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from emoprobe.config.execution.storage import Storage
from emoprobe.results import atomic
from emoprobe.results.activation_folder import METADATA, TENSORS, ActivationFolder, StoredTensors
from emoprobe.results.layout import ACTIVATION_FILES, Layout
from emoprobe.results.manifest import StoredEntry
from emoprobe.results.record import Record
from emoprobe.storage.bucket import Bucket, StorageError, in_parallel
from emoprobe.storage.remote import experiment_bucket, fault_of, named_shard, read_rows, read_shards
from emoprobe.storage.shard import Shard

log = logging.getLogger(__name__)


class Pulled(Record):
    """`activations_pulled.json`: how many folders came from where, and how many were here already."""

    uri: str
    folders: int
    here: int


def pull(layout: Layout, settings: Storage) -> Pulled:
    """Fetch the tensors of every folder that the manifest in the bucket lists and that has none here.

    A folder that was captured anew since, with other activations than the bucket has, is left as it is.

    Raises:
        StorageError: the store cannot be used, or lacks what its manifest lists.
        ActivationError: the metadata of a folder here are damaged.
    """
    bucket = experiment_bucket(layout, settings)
    rows, shards = read_rows(bucket)
    if not rows:
        raise StorageError(f"{bucket.url}: has no activations; push them there first (make push)")
    missing = {name: row for name, row in rows.items() if _is_away(layout, name, row)}
    fetch(layout, bucket, missing, shards)
    pulled = Pulled(uri=bucket.url, folders=len(missing), here=len(rows) - len(missing))
    atomic.write_json(layout.pulled, pulled.values())
    log.info("%s: %d folders were pulled, %d were here", bucket.url, pulled.folders, pulled.here)
    return pulled


def fetch(
    layout: Layout,
    bucket: Bucket,
    rows: Mapping[str, StoredEntry],
    shards: Mapping[str, Shard | StorageError] | None = None,
) -> None:
    """Fetch the tensors of some folders; a folder that is not here at all gets its metadata as well.

    Args:
        layout: the experiment.
        bucket: where its activations are.
        rows: of the folders.
        shards: the shards that they name, where they have been read.

    Raises:
        StorageError: they cannot be read, or a shard is missing or corrupt.
    """
    shards = read_shards(bucket, rows.values()) if shards is None else shards
    by_shard: dict[str, list[str]] = {}
    for name, row in rows.items():
        if fault := fault_of(name, row, shards):
            raise StorageError(fault)
        by_shard.setdefault(row.uri, []).append(name)
    runs = []
    for uri, names in by_shard.items():
        shard = shards[uri]
        assert isinstance(shard, Shard)
        runs += [(shard, run) for run in shard.runs(set(names))]
    in_parallel(lambda run: _write_run(layout, *run), runs, bucket.settings.concurrency)


def pull_folder(path: Path, stored: StoredTensors, sha256: str, settings: Storage) -> None:
    """Fetch one folder, which its server has pushed, to its place here; its metadata say where it is there.

    Args:
        path: its place here.
        stored: where its tensors are.
        sha256: the hash of the tensors that the server wrote.
        settings: how the store is read.

    Raises:
        StorageError: it cannot be read, it is another's, or its shard is missing or corrupt.
    """
    name = f"{path.parent.name}/{path.name}"
    shard = named_shard(stored, settings)
    if name not in shard.index.folders or shard.stored(name) != stored:
        raise StorageError(f"{stored.uri}: does not hold {name} where its server says")
    if shard.index.folders[name].sha256 != sha256:
        raise StorageError(
            f"{stored.uri}: holds other activations of {name} than its server wrote; if somebody else captures to the "
            "same folder of the server, choose another experiment.name, then run again"
        )
    content = shard.read_run([name])[name]
    metadata = shard.index.folders[name].read_metadata(name).model_copy(update={"stored": stored})
    with atomic.directory(path, ACTIVATION_FILES) as folder:
        (folder / TENSORS).write_bytes(content)
        (folder / METADATA).write_text(atomic.to_json(metadata.values()), encoding="utf-8")


def _is_away(layout: Layout, name: str, row: StoredEntry) -> bool:
    """Return whether the tensors of a folder are not here, and the bucket has them."""
    folder = layout.activations(*_pair(name))
    if (folder / TENSORS).exists():
        return False
    return not (folder / METADATA).exists() or ActivationFolder.read(folder).metadata.sha256 == row.sha256


def _write_run(layout: Layout, shard: Shard, names: Sequence[str]) -> None:
    for name, content in shard.read_run(names).items():
        path = layout.activations(*_pair(name))
        if (path / METADATA).exists():
            atomic.write_bytes(path / TENSORS, content)
            continue
        with atomic.directory(path, ACTIVATION_FILES) as folder:
            (folder / TENSORS).write_bytes(content)
            (folder / METADATA).write_text(shard.index.folders[name].metadata, encoding="utf-8")


def _pair(name: str) -> tuple[str, str]:
    variant, _, sample = name.partition("/")
    return variant, sample
