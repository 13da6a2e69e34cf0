"""Whether object storage still has what the manifest of an experiment says."""

from __future__ import annotations

from collections.abc import Mapping

from emoprobe.results.activation_folder import TENSORS
from emoprobe.results.layout import Layout
from emoprobe.results.manifest import ManifestEntry, StoredEntry
from emoprobe.storage.bucket import Bucket, StorageError
from emoprobe.storage.parallel import in_parallel, shares
from emoprobe.storage.push import checked_shards
from emoprobe.storage.remote import fault_of, read_shards
from emoprobe.storage.shard import Shard, split_uri


def check_stored(layout: Layout, entries: Mapping[str, ManifestEntry]) -> list[str]:
    """What is wrong with the shards that hold an experiment's activations, one line each.

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
    return [*problems, *(str(found) for found in faults if found is not None)]
