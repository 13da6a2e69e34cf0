"""Push: what the bucket does not have yet goes there, is read back, and then the manifest names it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path

from emoprobe.config.execution.storage import Storage
from emoprobe.results import atomic
from emoprobe.results.activation_folder import METADATA, TENSORS, ActivationError, ActivationMetadata, StoredTensors
from emoprobe.results.layout import Layout
from emoprobe.results.manifest import Manifest, ManifestEntry, StoredEntry
from emoprobe.results.record import DamagedError, Record, unreadable_words
from emoprobe.storage.bucket import Bucket, CorruptError, StorageError, in_parallel, shares
from emoprobe.storage.remote import (
    CheckedShard,
    CheckedShards,
    agrees,
    checked_shards,
    experiment_bucket,
    manifest_text,
    read_rows,
    read_shards,
    stored_entry,
    write_manifest,
)
from emoprobe.storage.shard import PREFIX, READINGS, Draft, LocalFolder, Shard, grouped, read_shard

log = logging.getLogger(__name__)


class Pushed(Record):
    """`activations_pushed.json`: the copy of the activations in object storage."""

    uri: str
    manifest_sha256: str
    folders: int


def push(layout: Layout, pairs: Iterable[tuple[str, str]], settings: Storage) -> Pushed:
    """Copy activation folders to object storage, and say so in the manifests there and here.

    The manifest in the bucket is written last, when every shard has been read back: until then a reader sees the one
    before. Without `settings.keep_local`, the tensors are deleted here after that.

    Args:
        layout: the experiment.
        pairs: variant and sample of every folder.
        settings: where to, and how.

    Raises:
        ActivationError: a folder is damaged, or has no tensors, here or there.
        StorageError: the store cannot be used, or does not keep what it is given.
    """
    bucket = experiment_bucket(layout, settings)
    folders = [_local_folder("/".join(pair), layout.activations(*pair)) for pair in pairs]
    there, shards = read_rows(bucket)
    here = {folder.name: row for folder in folders if (row := _recorded_row(layout, folder)) is not None}
    shards |= read_shards(bucket, [row for row in here.values() if row.uri not in shards])
    claimed = there | here
    whole = _whole_shards(bucket, shards, checked_shards(layout))
    rows = {name: row for name, row in claimed.items() if row.uri in whole and agrees(name, row, whole[row.uri])}
    for name in sorted(there.keys() - rows.keys() - {folder.name for folder in folders}):
        log.warning("%s: %s is whole in the bucket no longer; its row is left out", bucket.url, name)
    missing = [folder for folder in folders if not _is_there(folder, rows, whole)]
    for folder in missing:
        _must_have_tensors(folder, shards)
    for shard in _send(bucket, missing):
        whole[shard.uri] = shard
        rows |= {name: _row(layout, name, shard) for name in shard.index.folders}
    rows = dict(sorted(rows.items()))
    text = manifest_text(rows)
    if rows != there:
        write_manifest(bucket, text)
    named = sorted({row.uri for row in rows.values()})
    checked = {uri: CheckedShard(bytes=whole[uri].size, e_tag=whole[uri].e_tag) for uri in named}
    atomic.write_json(layout.shards, CheckedShards(checked).model_dump(mode="json"))
    _name_here(layout, rows)
    if not settings.keep_local:
        for folder in folders:
            _delete_tensors(folder, rows[folder.name])
        layout.pulled.unlink(missing_ok=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    pushed = Pushed(uri=bucket.url, manifest_sha256=digest, folders=len(rows))
    atomic.write_json(layout.pushed, pushed.values())
    log.info("%s: %d folders in %d shards; %d folders were sent", bucket.url, len(rows), len(named), len(missing))
    return pushed


def push_folders(bucket: Bucket, paths: Iterable[Path]) -> dict[Path, StoredTensors]:
    """Push folders that somebody else will list: their shards alone, checked. They are named by their last two parts.

    Raises:
        ActivationError: a folder is damaged.
        StorageError: the store cannot be used, or does not keep what it is given.
    """
    # Folders of two experiments may have the same name, which a shard has once.
    experiments: dict[Path, dict[str, Path]] = {}
    for path in paths:
        experiments.setdefault(path.parent.parent, {})[f"{path.parent.name}/{path.name}"] = path
    stored: dict[Path, StoredTensors] = {}
    for folders in experiments.values():
        for shard in _send(bucket, [_local_folder(name, path) for name, path in sorted(folders.items())]):
            stored |= {folders[name]: shard.stored(name) for name in shard.index.folders}
    return stored


def _local_folder(name: str, path: Path) -> LocalFolder:
    try:
        text = (path / METADATA).read_text(encoding="utf-8")
        metadata = ActivationMetadata.parse(path / METADATA, text)
    except (OSError, UnicodeDecodeError, DamagedError) as error:
        raise ActivationError(f"{path / METADATA} {unreadable_words(error, 'its folder')}") from None
    return LocalFolder(name, path, text, metadata)


def _recorded_row(layout: Layout, folder: LocalFolder) -> StoredEntry | None:
    """The row of a folder that says itself where its tensors lie."""
    metadata = folder.metadata
    return None if metadata.stored is None else stored_entry(layout, folder.name, metadata, metadata.stored)


def _row(layout: Layout, name: str, shard: Shard) -> StoredEntry:
    return stored_entry(layout, name, shard.index.folders[name].read_metadata(name), shard.stored(name))


def _must_have_tensors(folder: LocalFolder, shards: dict[str, Shard | StorageError]) -> None:
    if (folder.path / TENSORS).exists():
        return
    shard = shards.get(folder.metadata.stored.uri) if folder.metadata.stored is not None else None
    why = str(shard) if isinstance(shard, StorageError) else "they are neither here nor in the bucket"
    raise ActivationError(f"{folder.path / TENSORS}: is lost ({why}); delete its folder and run again")


def _whole_shards(
    bucket: Bucket, shards: dict[str, Shard | StorageError], known: dict[str, CheckedShard]
) -> dict[str, Shard]:  # fmt: skip
    """Those that hold what they should. One that was checked before and has not changed is not read again."""
    readable = [shard for shard in shards.values() if isinstance(shard, Shard)]

    def is_whole(shard: Shard) -> bool:
        old = known.get(shard.uri)
        if old is not None and shard.e_tag is not None and old.e_tag == shard.e_tag:
            return True
        return shard.find_fault(in_flight=in_flight) is None

    at_once, in_flight = shares(len(readable), bucket.settings.concurrency)
    kept = in_parallel(is_whole, readable, at_once)
    return {shard.uri: shard for shard, whole in zip(readable, kept, strict=True) if whole}


def _is_there(folder: LocalFolder, rows: dict[str, StoredEntry], shards: dict[str, Shard]) -> bool:
    """Return whether the bucket has this folder as it is here: its tensors, and its metadata."""
    row = rows.get(folder.name)
    if row is None or row.sha256 != folder.metadata.sha256:
        return False
    there = shards[row.uri].index.folders[folder.name].read_metadata(folder.name)
    return there == folder.metadata.model_copy(update={"stored": there.stored})


def _send(bucket: Bucket, folders: list[LocalFolder]) -> list[Shard]:
    """Write the shards of some folders, those that are not there already, and check each."""
    settings = bucket.settings
    groups = grouped(folders, settings.shard_samples, settings.shard_mib << 20)
    if not groups:
        return []
    present = bucket.sizes(f"{PREFIX}/")
    at_once, in_flight = shares(len(groups), settings.concurrency)

    def send(group: list[LocalFolder]) -> Shard:
        draft = Draft.of(group)
        if present.get(draft.key) == draft.size:  # left there by a push that was broken off
            try:
                shard = read_shard(bucket, draft.key, len(draft.head))
                if shard.find_fault(in_flight=in_flight) is None:
                    return shard
            except CorruptError:
                pass
        problem: CorruptError | None = None
        for _ in range(READINGS):
            bucket.write(draft.key, draft.content(), draft.size, in_flight)
            try:
                shard = read_shard(bucket, draft.key, len(draft.head))
                problem = shard.find_fault(in_flight=in_flight)
            except CorruptError as error:
                problem = error
            if problem is None:
                return shard
        raise StorageError(f"{bucket.uri(draft.key)}: holds other bytes than were sent ({problem}); push again")

    return in_parallel(send, groups, at_once)


def _name_here(layout: Layout, rows: dict[str, StoredEntry]) -> None:
    """Give the rows of the local manifest their places. What follows from it stays up to date."""
    if not layout.manifest.exists():
        return
    entries = Manifest.read(layout.manifest).root
    placed: dict[str, ManifestEntry] = {}
    for name, entry in entries.items():
        row = rows.get(name)
        placed[name] = row if row is not None and row.sha256 == entry.sha256 else entry
    if placed != entries:
        atomic.rewrite_text(layout.manifest, atomic.to_json(Manifest(placed).model_dump(mode="json")))


def _delete_tensors(folder: LocalFolder, row: StoredEntry) -> None:
    """Delete the tensors of a folder, once its metadata say where they are."""
    tensors = folder.path / TENSORS
    if not tensors.exists():
        return
    if folder.metadata.stored != row.stored:
        metadata = folder.metadata.model_copy(update={"stored": row.stored})
        atomic.rewrite_text(folder.path / METADATA, atomic.to_json(metadata.values()))
    tensors.unlink()
