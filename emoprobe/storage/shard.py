"""What a shard is: an index, then the safetensors files of many activation folders, unchanged, one after another.

    8 bytes         length of the index, little-endian
    32 bytes        SHA-256 of the index
    the index       JSON, see `Index`
    the files       in the order of the index

The index holds each folder's `metadata.json` and where its tensors lie, so that a shard alone gives its folders back.
An object is named after the SHA-256 of all of it: the same folders make the same object, and none is ever changed.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from emoprobe.results.activation_folder import METADATA, TENSORS, ActivationError, ActivationMetadata, StoredTensors
from emoprobe.results.record import Record, unreadable_words
from emoprobe.storage.bucket import Bucket, CorruptError, MissingObjectError, ObjectStart, StorageError, in_parallel

PREFIX = "shards"
HEAD = 8 + 32
# Read at first where nobody knows how long an index is; a longer one takes a second request.
FIRST_READ = 256 << 10
READINGS = 3  # of what does not have its hash, as it may have been spoilt on the way


def sha256(content: bytes | memoryview) -> str:
    """The hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


class TensorPlace(Record):
    """One tensor: its bytes within the file, and a CRC-32 of each layer, so that parts of it can be checked."""

    shape: list[int]
    begin: int
    layer_bytes: int
    crc32: list[int]


class ShardedFolder(Record):
    """One folder: its metadata as text, and its tensors' file, whose `offset` counts from the end of the index."""

    metadata: str
    offset: int
    length: int
    sha256: str
    tensors: dict[str, TensorPlace]

    def read_metadata(self, name: str) -> ActivationMetadata:
        """The metadata as a record."""
        return ActivationMetadata.parse(Path(name) / METADATA, self.metadata)


class Index(Record):
    """`variant/sample` → its folder, in the order of the files."""

    format: int = 1
    folders: dict[str, ShardedFolder] = Field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Length of all files together."""
        return sum(folder.length for folder in self.folders.values())


@dataclass(frozen=True)
class Shard:
    """A shard in a bucket: its key there, its index, where its files begin, and what the store says of it."""

    bucket: Bucket
    key: str
    index: Index
    start: int
    e_tag: str | None

    @property
    def uri(self) -> str:
        """Its full address."""
        return self.bucket.uri(self.key)

    @property
    def size(self) -> int:
        """Its size, by its index."""
        return self.start + self.index.bytes

    def stored(self, name: str) -> StoredTensors:
        """Return the location of a folder's tensors."""
        folder = self.index.folders[name]
        return StoredTensors(uri=self.uri, offset=self.start + folder.offset, length=folder.length)

    def runs(self, names: Container[str] | None = None) -> list[list[str]]:
        """The folders, or some of them, as runs that one request reads: side by side, about a part's bytes in all."""
        runs: list[list[str]] = []
        size, end = 0, -1
        for name, folder in self.index.folders.items():
            if names is not None and name not in names:
                continue
            if folder.offset != end or size + folder.length > self.bucket.part:
                runs.append([])
                size = 0
            runs[-1].append(name)
            size, end = size + folder.length, folder.offset + folder.length
        return runs

    def read_run(self, names: Sequence[str]) -> dict[str, memoryview]:
        """The tensors' files of folders that lie side by side, each checked by its hash.

        Raises:
            CorruptError: one is not what its hash says.
            StorageError: they cannot be read.
        """
        folders = [self.index.folders[name] for name in names]
        first, end = folders[0].offset, folders[-1].offset + folders[-1].length
        spoilt = ""
        for _ in range(READINGS):
            content = memoryview(self.bucket.read(self.key, self.start + first, self.start + end))
            files = {
                name: content[folder.offset - first : folder.offset - first + folder.length]
                for name, folder in zip(names, folders, strict=True)
            }
            spoilt = next((name for name, file in files.items() if sha256(file) != self.index.folders[name].sha256), "")
            if not spoilt:
                return files
        raise CorruptError(
            f"{self.uri}: the shard is corrupt, the tensors of {spoilt} are not those of their hash; push again from "
            f"where they are, or delete the folder of {spoilt} and run again"
        )

    def find_fault(self, names: Container[str] | None = None, in_flight: int = 1) -> CorruptError | None:
        """Read the files of all folders, or of some; what is wrong with them, or None.

        Raises:
            StorageError: they cannot be read.
        """
        try:
            in_parallel(lambda run: len(self.read_run(run)), self.runs(names), in_flight)
        except CorruptError as error:
            return error
        return None


def read_shard(bucket: Bucket, key: str, guess: int = FIRST_READ) -> Shard:
    """Read the index of a shard, checked.

    Args:
        bucket: where it is.
        key: its key.
        guess: how many bytes to read at first; with as many as the index has, this is one request.

    Raises:
        MissingObjectError: it is not there.
        CorruptError: it is not what its hash says, or cut short.
        StorageError: it cannot be read.
    """
    problem = ""
    for _ in range(READINGS):
        try:
            beginning = bucket.begin(key, max(guess, HEAD))
        except MissingObjectError:
            raise MissingObjectError(
                f"{bucket.uri(key)}: the shard is missing; push again from where its tensors are, or delete the "
                "folders that it holds and run again"
            ) from None
        try:
            return _parse(bucket, key, beginning)
        except StorageError:
            raise
        except ValueError as error:
            problem = str(error)
    raise CorruptError(
        f"{bucket.uri(key)}: the shard is corrupt ({problem}); push again from where its tensors are, or delete the "
        "folders that it holds and run again"
    )


def _parse(bucket: Bucket, key: str, beginning: ObjectStart) -> Shard:
    start = HEAD + int.from_bytes(beginning.content[:8], "little")
    if not HEAD < start <= beginning.size:
        raise ValueError("its index is said to be longer than it")
    text = beginning.content[HEAD:start]
    if len(text) < start - HEAD:
        text += bucket.read(key, HEAD + len(text), start)
    if hashlib.sha256(text).digest() != beginning.content[8:HEAD]:
        raise ValueError("its index is not that of its hash")
    shard = Shard(bucket, key, Index.model_validate_json(text), start, beginning.e_tag)
    if shard.size != beginning.size:
        raise ValueError(f"it has {beginning.size} bytes, not {shard.size}")
    return shard


def split_uri(uri: str) -> tuple[str, str]:
    """The folder of a shard's address, and its key there.

    Raises:
        StorageError: it is no address of a shard.
    """
    url, separator, name = uri.rpartition(f"/{PREFIX}/")
    if not separator:
        raise StorageError(f"{uri}: is no address of a shard; delete the folder that names it and run again")
    return url, f"{PREFIX}/{name}"


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
        of_variant = folder.name.partition("/")[0]
        full = groups and ((len(groups[-1]) >= samples and held >= size) or held + folder.metadata.bytes > MAX_BYTES)
        if of_variant != variant or full:
            groups.append([])
            variant, held = of_variant, 0
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
