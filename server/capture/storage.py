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
from emoprobe.results.activation_folder import METADATA, TENSORS
from emoprobe.results.layout import ACTIVATION_FILES

MAX_NAME = 255


class SaveDirError(ValueError):
    """A folder that the server may not write to; the message says why."""


class OverflowedError(ValueError):
    """Activations that the stored type cannot hold."""


@dataclass(frozen=True)
class Stored:
    """A folder that was written."""

    save_dir: str
    sha256: str
    bytes: int
    shapes: dict[str, list[int]]


class Storage:
    """Writes activation folders below one root and nowhere else."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()

    def resolve(self, save_dir: str) -> Path:
        """The folder that a request names, relative to the root or absolute.

        Raises:
            SaveDirError: it is not below the root, leads through a symbolic link out of it, or cannot be a path.
        """
        accepted = "accepted: a folder below the server's activation root"
        if "\0" in save_dir or not save_dir.strip():
            raise SaveDirError(f"save_dir is empty or has a NUL character; {accepted}")
        parts = Path(save_dir).parts
        if ".." in parts or any(len(os.fsencode(part)) > MAX_NAME for part in parts):
            raise SaveDirError(f"save_dir has a part that is `..` or too long; {accepted}")
        if any(part.startswith(".") for part in parts):
            raise SaveDirError(f"save_dir has a part that begins with a dot; {accepted}")
        if not re.fullmatch(r"[\w\-./+=@, ]+", save_dir):
            raise SaveDirError(f"save_dir has a character that is no letter, digit or one of - . / + = @ _; {accepted}")
        try:
            path = (self.root / save_dir).resolve()
            if path == self.root or not path.is_relative_to(self.root):
                raise SaveDirError(f"save_dir lies outside of the root; {accepted}")
            if path.exists() and not {entry.name for entry in path.iterdir()} <= set(ACTIVATION_FILES):
                raise SaveDirError(f"save_dir exists and holds something else; {accepted}")
            if not next(parent for parent in path.parents if parent.exists()).is_dir():
                raise SaveDirError(f"save_dir leads through a file; {accepted}")
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise SaveDirError(f"save_dir cannot be resolved ({reason}); {accepted}") from None
        return path

    def write(self, folder: Path, activations: dict[str, torch.Tensor], metadata: dict[str, Any]) -> Stored:
        """Write a folder with both files in one step.

        Raises:
            OverflowedError: a value is not finite.
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
        with atomic.directory(folder) as temporary:
            (temporary / TENSORS).write_bytes(content)
            (temporary / METADATA).write_text(json.dumps(full, allow_nan=False) + "\n", encoding="utf-8")
        return Stored(str(folder), digest, len(content), shapes)
