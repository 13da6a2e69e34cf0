"""Read, write and check the manifest of an experiment in a bucket, and the shards that it names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping

from pydantic import RootModel, ValidationError

from emoprobe.config.execution.storage import Storage
from emoprobe.results import atomic
from emoprobe.results.activation_folder import TENSORS, ActivationMetadata, StoredTensors
from emoprobe.results.layout import Layout
from emoprobe.results.manifest import Manifest, ManifestEntry, StoredEntry
from emoprobe.results.record import DamagedError, Record, read_json
from emoprobe.storage.bucket import Bucket, CorruptError, MissingObjectError, StorageError, in_parallel, shares
from emoprobe.storage.shard import FIRST_READ, READINGS, Shard, read_shard, split_uri

MANIFEST = "activations_manifest.json"


def experiment_bucket(layout: Layout, settings: Storage) -> Bucket:
    """The folder of an experiment in the bucket of its config.

    Raises:
        StorageError: there is none, or it cannot be used.
    """
    if settings.url is None:
        raise StorageError("storage.url is not set: say where activations are pushed to")
    return Bucket(f"{settings.url}/{layout.root.name}", settings)


def read_manifest(bucket: Bucket) -> dict[str, StoredEntry]:
    """The rows of an experiment's manifest in the bucket; none where there is no manifest.

    What was spoilt on the way and still reads as a manifest shows when its rows are compared with their shards.

    Raises:
        StorageError: it cannot be read, or is no manifest.
    """
    problem = ""
    for _ in range(READINGS):
        try:
            content = bucket.read_whole(MANIFEST)
        except MissingObjectError:
            return {}
        try:
            rows = Manifest.model_validate_json(content).root
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]["msg"]
            continue
        return {name: row for name, row in rows.items() if isinstance(row, StoredEntry)}
    raise StorageError(f"{bucket.uri(MANIFEST)}: is damaged ({problem}); delete it there and push again")


def manifest_text(rows: dict[str, StoredEntry]) -> str:
    """The text of a manifest with these rows."""
    return atomic.to_json(Manifest(dict(rows)).model_dump(mode="json"))


def write_manifest(bucket: Bucket, text: str) -> None:
    """Put a manifest in its place once the bucket has all of its bytes.

    It is sent under another name, read back, and copied within the store: no reader sees one that was cut short or
    spoilt on the way.

    Raises:
        StorageError: it cannot be written.
    """
    content = text.encode()
    draft = f"manifests/{hashlib.sha256(content).hexdigest()}.json"
    for _ in range(READINGS):
        bucket.write(draft, iter([content]), len(content), bucket.settings.concurrency)
        if any(bucket.read_whole(draft) == content for _ in range(READINGS)):
            bucket.copy(draft, MANIFEST)
            bucket.delete(draft)
            return
    raise StorageError(f"{bucket.uri(draft)}: holds other bytes than were sent; push again")


def key_of(bucket: Bucket, uri: str) -> tuple[Bucket, str]:
    """The bucket folder that an address is in, and its key there."""
    url, key = split_uri(uri)
    return (bucket if url == bucket.url else Bucket(url, bucket.settings)), key


def read_shards(bucket: Bucket, rows: Iterable[StoredEntry]) -> dict[str, Shard | StorageError]:
    """The index of every shard that some rows name, by its address; the error where one is missing or corrupt.

    Raises:
        StorageError: the store cannot be reached.
    """
    first: dict[str, int] = {}
    for row in rows:
        first[row.uri] = min(first.get(row.uri, row.offset), row.offset)

    def read(uri: str) -> Shard | StorageError:
        try:
            return read_shard(*key_of(bucket, uri), guess=min(first[uri], FIRST_READ))
        except (MissingObjectError, CorruptError) as error:
            return error

    uris = list(first)
    return dict(zip(uris, in_parallel(read, uris, bucket.settings.concurrency), strict=True))


def stored_entry(layout: Layout, name: str, metadata: ActivationMetadata, stored: StoredTensors) -> StoredEntry:
    """The row of a folder in a manifest."""
    variant, _, sample = name.partition("/")
    return StoredEntry(
        save_dir=str(layout.activations(variant, sample).relative_to(layout.root)),
        request_id=metadata.request_id,
        sha256=metadata.sha256,
        bytes=metadata.bytes,
        uri=stored.uri,
        offset=stored.offset,
        length=stored.length,
    )


# By address. A shard never changes, so that its index is read once by a process.
_shards: dict[str, Shard] = {}


def named_shard(stored: StoredTensors, settings: Storage) -> Shard:
    """The shard in which some tensors lie, wherever that is; read once, and remembered.

    Raises:
        MissingObjectError, CorruptError: it is not there, or not what its hash says.
        StorageError: it cannot be read, or the address is none.
    """
    if stored.uri not in _shards:
        url, key = split_uri(stored.uri)
        remember(read_shard(Bucket(url, settings), key, min(stored.offset, FIRST_READ)))
    return _shards[stored.uri]


def remember(shard: Shard) -> None:
    """Keep a shard's index."""
    _shards[shard.uri] = shard


def forget_shards() -> None:
    """Forget all that is remembered, with the credentials that it was read with."""
    _shards.clear()


def read_rows(
    bucket: Bucket, selects: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, StoredEntry], dict[str, Shard | StorageError]]:
    """The rows of the manifest in the bucket for the folders that are wanted, and the shards that they name.

    A manifest whose rows are not what the shards say is read again, as it may have been spoilt on the way.

    Raises:
        StorageError: the store cannot be reached.
    """
    rows: dict[str, StoredEntry] = {}
    shards: dict[str, Shard | StorageError] = {}
    for _ in range(READINGS):
        rows = {name: row for name, row in read_manifest(bucket).items() if selects(name)}
        shards = read_shards(bucket, rows.values())
        if not any(fault_of(name, row, shards) for name, row in rows.items()):
            break
    return rows, shards


def fault_of(name: str, row: StoredEntry, shards: Mapping[str, Shard | StorageError]) -> str:
    """Return why the tensors of a folder are not where a row says; empty where they are."""
    shard = shards[row.uri]
    if isinstance(shard, StorageError):
        return str(shard)
    if agrees(name, row, shard):
        return ""
    return f"{row.uri}: does not hold {name} as the manifest says; push again, or delete its folder and run again"


def agrees(name: str, row: StoredEntry, shard: Shard) -> bool:
    """Return whether a row of a manifest agrees with the shard about its folder."""
    folder = shard.index.folders.get(name)
    return (
        folder is not None
        and (row.sha256, row.bytes) == (folder.sha256, folder.length)
        and row.stored == shard.stored(name)
    )


class CheckedShard(Record):
    """A shard as it was when it was checked. A store gives an object another `e_tag` when its bytes change."""

    bytes: int
    e_tag: str | None


class CheckedShards(RootModel[dict[str, CheckedShard]]):
    """`activations_shards.json`: address → the shard, of all that hold an experiment's activations."""


def checked_shards(layout: Layout) -> dict[str, CheckedShard]:
    """The shards that were checked when they were pushed; none where nobody knows."""
    try:
        return CheckedShards.model_validate(read_json(layout.shards)).root if layout.shards.exists() else {}
    except (DamagedError, ValidationError):
        return {}


def check_stored(layout: Layout, entries: Mapping[str, ManifestEntry]) -> list[str]:
    """Check the shards of an experiment's activations; return problems, one line each.

    The index of every shard is read. Its files are read where they are all that there is of some tensors, and where the
    store says that the shard has changed since it was pushed.

    Raises:
        StorageError: the store cannot be reached.
    """
    rows = {name: entry for name, entry in entries.items() if isinstance(entry, StoredEntry)}
    if not rows:
        return []
    bucket = Bucket(split_uri(next(iter(rows.values())).uri)[0])
    known = checked_shards(layout)
    shards = read_shards(bucket, rows.values())
    problems = dict.fromkeys(fault for name, row in rows.items() if (fault := fault_of(name, row, shards)))
    away: dict[str, set[str]] = {}
    for name, row in rows.items():
        variant, _, sample = name.partition("/")
        if not (layout.activations(variant, sample) / TENSORS).exists():
            away.setdefault(row.uri, set()).add(name)

    def find(shard: Shard) -> StorageError | None:
        before = known.get(shard.uri)
        changed = before is None or shard.e_tag is None or before.e_tag != shard.e_tag
        return shard.find_fault(None if changed else away.get(shard.uri, set()), in_flight)

    present = [shard for shard in shards.values() if isinstance(shard, Shard)]
    at_once, in_flight = shares(len(present), bucket.settings.concurrency)
    faults = in_parallel(find, present, at_once)
    return [*problems, *(str(error) for error in faults if error is not None)]
