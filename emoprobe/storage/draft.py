"""Shards that are to be: how activation folders are grouped, and what their shard will be."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from emoprobe.results.activation_folder import METADATA, TENSORS, ActivationError, ActivationMetadata
from emoprobe.results.os_errors import unreadable_words
from emoprobe.storage.shard import PREFIX, Index, ShardedFolder, TensorPlace, sha256

MAX_BYTES = 1 << 30  # of one shard of large folders, so that a failed upload does not cost hours


@dataclass(frozen=True)
class LocalFolder:
    """An activation folder of this machine that is to be pushed."""

    name: str
    path: Path
    text: str
    metadata: ActivationMetadata


def grouped(folders: Iterable[LocalFolder], samples: int, size: int) -> list[list[LocalFolder]]:
    """Group folders into shards: of one variant, so many samples or more, until they have so many bytes."""
    groups: list[list[LocalFolder]] = []
    variant, held = None, 0
    for folder in folders:
        own = folder.name.partition("/")[0]
        full = groups and ((len(groups[-1]) >= samples and held >= size) or held + folder.metadata.bytes > MAX_BYTES)
        if own != variant or full:
            groups.append([])
            variant, held = own, 0
        groups[-1].append(folder)
        held += folder.metadata.bytes
    return groups


@dataclass(frozen=True)
class Draft:
    """A shard that is not in the bucket yet."""

    folders: list[LocalFolder]
    index: Index
    head: bytes
    key: str

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return len(self.head) + self.index.bytes

    @classmethod
    def of(cls, folders: Sequence[LocalFolder]) -> Draft:
        """Read some folders, check them, and say what their shard is.

        Raises:
            ActivationError: a file is missing or is not what its metadata says.
        """
        entries: dict[str, ShardedFolder] = {}
        offset = 0
        for folder in folders:
            entries[folder.name] = _entry(folder, offset)
            offset += entries[folder.name].length
        index = Index(folders=entries)
        text = json.dumps(index.values(), ensure_ascii=False, separators=(",", ":")).encode()
        head = len(text).to_bytes(8, "little") + hashlib.sha256(text).digest() + text
        digest = hashlib.sha256(head)
        for folder in folders:
            digest.update(_tensors(folder))
        return cls(list(folders), index, head, f"{PREFIX}/{digest.hexdigest()}.shard")

    def content(self) -> Iterator[bytes]:
        """Its bytes, in pieces."""
        yield self.head
        for folder in self.folders:
            yield _tensors(folder)


def _tensors(folder: LocalFolder) -> bytes:
    try:
        return (folder.path / TENSORS).read_bytes()
    except OSError as error:
        raise ActivationError(f"{folder.path / TENSORS} {unreadable_words(error, 'its folder')}") from None


def _entry(folder: LocalFolder, offset: int) -> ShardedFolder:
    content = _tensors(folder)
    digest = sha256(content)
    if (digest, len(content)) != (folder.metadata.sha256, folder.metadata.bytes):
        raise ActivationError(
            f"{folder.path / TENSORS}: hash or size is not what {METADATA} says; delete its folder and run again"
        )
    data = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:data])
    view = memoryview(content)
    tensors = {}
    for point in folder.metadata.hook_points:
        begin, end = (data + place for place in header[point]["data_offsets"])
        layers = header[point]["shape"][0]
        step = (end - begin) // layers if layers else 0
        checks = [zlib.crc32(view[at : at + step]) for at in range(begin, end, step or 1)] if step else []
        tensors[point] = TensorPlace(shape=header[point]["shape"], begin=begin, layer_bytes=step, crc32=checks)
    return ShardedFolder(metadata=folder.text, offset=offset, length=len(content), sha256=digest, tensors=tensors)
