"""`activations_manifest.json`: where the activations of every trajectory lie, with their hashes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, RootModel, ValidationError

from emoprobe.results.activation_folder import ActivationError, ActivationFolder, StoredTensors
from emoprobe.results.layout import Layout
from emoprobe.results.record import DamagedError, Record, read_json


class ManifestEntry(Record):
    """Location of one activation folder, relative to the experiment, and its tensor file."""

    save_dir: str
    request_id: str | None = None
    sha256: str
    bytes: int


class StoredEntry(ManifestEntry):
    """The entry of a folder whose tensors are in object storage as well, or there alone: see `StoredTensors`."""

    uri: str
    offset: int
    length: int

    @property
    def stored(self) -> StoredTensors:
        """Location of its tensors."""
        return StoredTensors(uri=self.uri, offset=self.offset, length=self.length)


def _pair_name(name: str) -> str:
    # Folders are made after these names, and a manifest may come out of somebody else's bucket.
    parts = name.split("/")
    if len(parts) != 2 or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ValueError(f"{name!r} names no variant and sample")
    return name


PairName = Annotated[str, AfterValidator(_pair_name)]
Entry = Annotated[StoredEntry | ManifestEntry, Field(union_mode="left_to_right")]


class Manifest(RootModel[dict[PairName, Entry]]):
    """`activations_manifest.json`: `variant/sample` → its entry."""

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Read the manifest.

        Raises:
            DamagedError: it is missing or damaged.
        """
        try:
            return cls.model_validate(read_json(path))
        except ValidationError as error:
            raise DamagedError(path, error.errors(include_url=False)[0]["msg"]) from None


def manifest(layout: Layout, pairs: Iterable[tuple[str, str]]) -> Manifest:
    """List the activation folders of some pairs.

    Raises:
        ActivationError: one is missing or damaged.
    """
    entries = {}
    for variant, sample in pairs:
        folder = layout.activations(variant, sample)
        metadata = ActivationFolder.read(folder).metadata
        entry = ManifestEntry(
            save_dir=str(folder.relative_to(layout.root)),
            request_id=metadata.request_id,
            sha256=metadata.sha256,
            bytes=metadata.bytes,
        )
        if metadata.stored is not None:
            entry = StoredEntry(**entry.values(), **metadata.stored.values())
        entries[f"{variant}/{sample}"] = entry
    return Manifest(entries)


def stored_pairs(layout: Layout, pairs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    """Those of some pairs whose tensors object storage has, as the manifest says, or the metadata of their folder."""
    try:
        rows = Manifest.read(layout.manifest).root
    except DamagedError:
        rows = {}
    return {
        (variant, sample)
        for variant, sample in pairs
        if isinstance(rows.get(f"{variant}/{sample}"), StoredEntry)
        or _names_a_place(layout.activations(variant, sample))
    }


def _names_a_place(folder: Path) -> bool:
    try:
        return ActivationFolder.read(folder).metadata.stored is not None
    except ActivationError:
        return False
