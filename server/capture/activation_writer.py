"""Activation folders under the server's root: checked paths, complete or absent, written beside the next batch."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from emoprobe.results import atomic
from emoprobe.results.activation_folder import METADATA, TENSORS, ActivationMetadata
from emoprobe.results.layout import ACTIVATION_FILES
from emoprobe.results.record import DamagedError

MAX_NAME = 255
ACCEPTED = "accepted: a folder below the server's activation root"


class SaveDirError(ValueError):
    """A folder that the server may not write to; the message says why."""


class OverflowedError(ValueError):
    """Activations that the stored type cannot hold."""


@dataclass(frozen=True)
class WrittenFolder:
    """A folder that was written."""

    save_dir: str
    sha256: str
    bytes: int
    shapes: dict[str, list[int]]


class ActivationWriter:
    """Writes activation folders below one root and nowhere else.

    It replaces and removes activation folders only: folders that hold the tensors of a capture, or metadata that
    describe one, and no more.
    """

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._named = Path(os.path.abspath(root))  # as its users name it, which may lead through symbolic links
        self.root = root.resolve()

    def resolve(self, save_dir: str) -> Path:
        """Return the folder that a request names, relative to the root or absolute.

        Only what lies below the root has to keep to the rules for names: the path of the root is its owner's choice.

        Raises:
            SaveDirError: it is not below the root, leads through a symbolic link out of it, holds files that no capture
                wrote, lies inside of an activation folder, or cannot be a path.
        """
        if "\0" in save_dir or not save_dir.strip():
            raise SaveDirError(f"save_dir is empty or has a NUL character; {ACCEPTED}")
        given = Path(save_dir)
        for root in (self._named, self.root):
            if given.is_relative_to(root):
                given = given.relative_to(root)
        if not given.is_absolute():
            _check_names(given)
        try:
            path = (self.root / given).resolve()
            if path == self.root or not path.is_relative_to(self.root):
                raise SaveDirError(f"save_dir lies outside of the root; {ACCEPTED}")
            _check_names(path.relative_to(self.root))
            if not next(parent for parent in path.parents if parent.exists()).is_dir():
                raise SaveDirError(f"save_dir leads through a file; {ACCEPTED}")
            self._check_place(path)
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise SaveDirError(f"save_dir cannot be resolved ({reason}); {ACCEPTED}") from None
        return path

    def delete(self, folder: Path) -> None:
        """Delete an activation folder; files in it that no capture wrote stay."""
        if folder.is_dir() and _is_activation_folder(folder):
            atomic.remove_directory(folder, ACTIVATION_FILES)

    def _check_place(self, path: Path) -> None:
        """Check that a folder may be written, or replaced.

        Raises:
            SaveDirError: it holds something else, or lies inside of an activation folder.
        """
        if path.exists() and any(path.iterdir()) and not _is_activation_folder(path):
            raise SaveDirError(f"save_dir exists and holds something else; {ACCEPTED}")
        below = [parent for parent in path.parents if parent.is_relative_to(self.root) and parent != self.root]
        if any((parent / TENSORS).exists() or (parent.is_dir() and _is_activation_folder(parent)) for parent in below):
            raise SaveDirError(f"save_dir lies inside of an activation folder; {ACCEPTED}")

    def write(self, folder: Path, activations: dict[str, torch.Tensor], metadata: dict[str, Any]) -> WrittenFolder:
        """Write a folder with both files in one step.

        Raises:
            OverflowedError: a value is not finite.
            SaveDirError: something else has come to be at its place since it was resolved; it stays as it is.
            OSError: it cannot be written; nothing is left behind.
        """
        for point, tensor in activations.items():
            if not bool(torch.isfinite(tensor).all()):
                raise OverflowedError(
                    f"the activations at {point} are not finite as {str(tensor.dtype).removeprefix('torch.')}; "
                    "choose dtype bfloat16 or float32"
                )
        content = save({point: tensor.contiguous() for point, tensor in activations.items()})
        digest = hashlib.sha256(content).hexdigest()
        shapes = {point: list(tensor.shape) for point, tensor in activations.items()}
        full = metadata | {"shapes": shapes, "sha256": digest, "bytes": len(content)}
        try:
            self._check_place(folder)  # others may have written since it was resolved
            with atomic.directory(folder, ACTIVATION_FILES) as temporary:
                (temporary / TENSORS).write_bytes(content)
                (temporary / METADATA).write_text(json.dumps(full, allow_nan=False) + "\n", encoding="utf-8")
        except (atomic.OccupiedError, NotADirectoryError):
            raise SaveDirError(f"save_dir exists and holds something else; {ACCEPTED}") from None
        return WrittenFolder(str(folder), digest, len(content), shapes)


def _check_names(path: Path) -> None:
    """Check the names on a path below the root.

    Raises:
        SaveDirError: one of them is not accepted.
    """
    if ".." in path.parts or any(len(os.fsencode(part)) > MAX_NAME for part in path.parts):
        raise SaveDirError(f"save_dir has a part that is `..` or too long; {ACCEPTED}")
    if any(part.startswith(".") for part in path.parts):
        raise SaveDirError(f"save_dir has a part that begins with a dot; {ACCEPTED}")
    if path.parts and not re.fullmatch(r"[\w\-./+=@, ]+", str(path)):
        raise SaveDirError(f"save_dir has a character that is no letter, digit or one of - . / + = @ _; {ACCEPTED}")


def _is_activation_folder(path: Path) -> bool:
    """Whether a folder holds no more than a capture, whose metadata may have been left alone by a push."""
    if not atomic.holds_only(path, ACTIVATION_FILES):
        return False
    if (path / TENSORS).exists():
        return True
    try:
        found = ActivationMetadata.read_file(path / METADATA)
    except DamagedError:
        return False
    # Every field is optional there, as another program may leave it out; a capture records at least one of these.
    return bool(found.sha256 or found.error or found.stored)
