"""Reading activations where they are in object storage: the layers that are asked for, by ranges, each checked."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes  # noqa: F401 (teaches NumPy bfloat16)
import numpy as np

from emoprobe.config.execution.storage import Storage
from emoprobe.results.activation_folder import ActivationError, ActivationFolder, StoredTensors
from emoprobe.results.layout import Layout
from emoprobe.results.manifest import Manifest, ManifestEntry, StoredEntry
from emoprobe.storage.bucket import Bucket, CorruptError, StorageError, in_parallel
from emoprobe.storage.remote import fault_of, forget_shards, named_shard, read_rows, remember
from emoprobe.storage.shard import READINGS, Shard, TensorPlace

# Bytes between two pieces that are read along with them: less than what a request of its own costs in time.
GAP = 64 << 10
BATCH = 256 << 20  # bytes that are held at once


@dataclass(frozen=True)
class _Piece:
    """Neighbouring layers of one tensor: where they begin in the shard, and which rows of the result they are."""

    number: int
    shard: Shard
    begin: int
    place: TensorPlace
    layer: int
    rows: list[int]

    @property
    def end(self) -> int:
        return self.begin + len(self.rows) * self.place.layer_bytes


def stored_folders(url: str, selects: Callable[[str, str], bool]) -> dict[tuple[str, str], ActivationFolder]:
    """The activation folders of an experiment in object storage, without their tensors.

    Args:
        url: the experiment's folder there.
        selects: which variants and samples.

    Raises:
        StorageError: it cannot be read, or a shard is missing or corrupt.
    """
    bucket = Bucket(url)
    rows, shards = read_rows(bucket, lambda name: selects(*name.split("/", 1)))
    folders = {}
    for name, row in rows.items():
        if fault := fault_of(name, row, shards):
            raise StorageError(fault)
        shard = shards[row.uri]
        assert isinstance(shard, Shard)
        remember(shard)
        metadata = shard.index.folders[name].read_metadata(name).model_copy(update={"stored": row.stored})
        variant, _, sample = name.partition("/")
        folders[variant, sample] = ActivationFolder(Path(row.save_dir), metadata, here=False)
    return folders


@dataclass(frozen=True)
class TensorRequest:
    """Some layers, by their rows in the tensors, of a folder that is in object storage."""

    name: str
    stored: StoredTensors
    dtype: str
    layers: list[int]


def tensor_requests(
    experiment: str | Path, folders: Sequence[tuple[tuple[str, str], ActivationFolder, list[int]]]
) -> list[TensorRequest]:
    """Locate the tensors of folders that are not local, from their metadata or the local manifest.

    Args:
        experiment: its folder, here or in object storage.
        folders: variant and sample, the folder, and the rows of the layers that are wanted.

    Raises:
        ActivationError: nobody knows of a copy.
    """
    entries: dict[str, ManifestEntry] = {}
    if any(folder.metadata.stored is None for _, folder, _ in folders):
        layout = Layout(Path(experiment))
        entries = Manifest.read(layout.manifest).root if layout.manifest.exists() else {}
    requests = []
    for (variant, sample), folder, layers in folders:
        name, stored = f"{variant}/{sample}", folder.metadata.stored
        entry = entries.get(name)
        if stored is None and isinstance(entry, StoredEntry) and entry.sha256 == folder.metadata.sha256:
            stored = entry.stored
        if stored is None:
            raise ActivationError(f"{folder.tensors} is damaged (it is missing); delete its folder and run again")
        requests.append(TensorRequest(name, stored, folder.metadata.dtype, layers))
    return requests


def read_layers(
    folders: Sequence[TensorRequest], hook_point: str
) -> Iterator[tuple[int, list[int], np.ndarray]]:  # fmt: skip
    """Some layers of one tensor of many folders.

    They come in pieces: the number of the folder, which of its layers, and their values (some layers, n_positions, d).

    Args:
        folders: which layers of which folders.
        hook_point: which tensor.

    Raises:
        StorageError: a shard is missing or corrupt, or does not hold the folder there.
    """
    try:
        pieces = _pieces(folders, hook_point)
        for batch in _batches(_ranges(pieces)):
            for read in in_parallel(_read, batch, batch[0][0].shard.bucket.settings.concurrency):
                for piece, content in read:
                    dtype, shape = np.dtype(folders[piece.number].dtype), piece.place.shape[1:]
                    yield piece.number, piece.rows, np.frombuffer(content, dtype).reshape(-1, *shape)
    except StorageError:
        forget_shards()  # what it holds may be what failed, such as credentials that have been renewed since
        raise


def _neighbours(layers: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Layers as runs that lie side by side: the first of each, and which of the given ones they are."""
    runs: list[tuple[int, list[int]]] = []
    for row, layer in sorted(enumerate(layers), key=lambda item: item[1]):
        if runs and layer == runs[-1][0] + len(runs[-1][1]):
            runs[-1][1].append(row)
        else:
            runs.append((layer, [row]))
    return runs


def _pieces(folders: Sequence[TensorRequest], hook_point: str) -> list[_Piece]:
    settings = Storage()
    ordered = sorted({folder.stored.uri: folder.stored for folder in folders[::-1]}.values(), key=lambda at: at.uri)
    opened = in_parallel(lambda stored: named_shard(stored, settings), ordered, settings.concurrency)
    shards = {shard.uri: shard for shard in opened}
    pieces = []
    for number, folder in enumerate(folders):
        stored, shard = folder.stored, shards[folder.stored.uri]
        held = shard.index.folders.get(folder.name)
        if held is None or shard.stored(folder.name) != stored:
            raise StorageError(
                f"{stored.uri}: does not hold {folder.name} there; push again, or delete its folder and run again"
            )
        place = held.tensors[hook_point]
        pieces += [
            _Piece(number, shard, stored.offset + place.begin + first * place.layer_bytes, place, first, rows)
            for first, rows in _neighbours(folder.layers)
        ]
    return sorted(pieces, key=lambda piece: (piece.shard.uri, piece.begin))


def _ranges(pieces: list[_Piece]) -> list[list[_Piece]]:
    """Pieces that one request reads: close to each other, and no more than a part in all."""
    ranges: list[list[_Piece]] = []
    for piece in pieces:
        last = ranges[-1] if ranges else None
        if (
            last is not None
            and last[0].shard is piece.shard
            and piece.begin - last[-1].end <= GAP
            and piece.end - last[0].begin <= piece.shard.bucket.part
        ):
            last.append(piece)
        else:
            ranges.append([piece])
    return ranges


def _batches(ranges: list[list[_Piece]]) -> Iterator[list[list[_Piece]]]:
    """Requests whose answers are held at once."""
    batch: list[list[_Piece]] = []
    held = 0
    for each in ranges:
        size = each[-1].end - each[0].begin
        if batch and held + size > BATCH:
            yield batch
            batch, held = [], 0
        batch.append(each)
        held += size
    if batch:
        yield batch


def _read(pieces: list[_Piece]) -> list[tuple[_Piece, memoryview]]:
    """Read neighbouring pieces in one request, and check each layer."""
    shard, first, end = pieces[0].shard, pieces[0].begin, pieces[-1].end
    for _ in range(READINGS):
        content = memoryview(shard.bucket.read(shard.key, first, end))
        parts = [(piece, content[piece.begin - first : piece.end - first]) for piece in pieces]
        if all(_is_whole(piece, part) for piece, part in parts):
            return parts
    raise CorruptError(
        f"{shard.uri}: the shard is corrupt between bytes {first} and {end}; push again from where its tensors are, or "
        "delete the folders that it holds and run again"
    )


def _is_whole(piece: _Piece, content: memoryview) -> bool:
    step = piece.place.layer_bytes
    return len(content) == step * len(piece.rows) and all(
        zlib.crc32(content[at * step : (at + 1) * step]) == piece.place.crc32[piece.layer + at]
        for at in range(len(piece.rows))
    )
