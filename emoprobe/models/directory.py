"""The directory of a model: what it has to hold, and what identifies it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from emoprobe.models.weights import WeightsError, shapes
from emoprobe.text import first_line

WEIGHTS = "model.safetensors"
SAMPLED_PARTS, SAMPLED_BYTES = 256, 4096


class ModelError(ValueError):
    """A model that cannot be found or used; the message says what to do."""


def directory_sha256(directory: Path) -> str:
    """Hash of a model directory in milliseconds, whatever its size.

    The index of the weights (or, for a single file, the safetensors header: names, types and shapes), the
    configuration and the tokenizer enter by content; the weights enter by name, size and a sample of their bytes, as
    gigabytes cannot be read for every plan: another checkpoint of the same shape differs nearly everywhere.
    """
    digest = hashlib.sha256()
    for file in sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith(".")):
        size = file.stat().st_size
        digest.update(f"{file.name}\0{size}\0".encode())
        if file.suffix == ".safetensors":
            with open(file, "rb") as stream:
                length = int.from_bytes(stream.read(8), "little")
                digest.update(stream.read(min(length, 64 << 20)))
                for part in range(SAMPLED_PARTS):
                    stream.seek(8 + length + (size - 8 - length) * part // SAMPLED_PARTS)
                    digest.update(stream.read(SAMPLED_BYTES))
        elif size < 64 << 20:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def check_directory(directory: Path) -> None:
    """Check that a local directory holds a model.

    Raises:
        ModelError: it is missing, lacks its configuration, weights or tokenizer, or they are damaged.
    """
    if not directory.is_dir():
        what = "is a file, and a model is a directory" if directory.exists() else "does not exist"
        raise ModelError(f"model.source: the directory {directory} {what}")
    if not (directory / "config.json").is_file():
        raise ModelError(f"model.source: {directory} has no config.json; is it a Hugging Face model directory?")
    read_object(directory / "config.json")
    if not any(directory.glob("*.safetensors")):
        raise ModelError(f"model.source: {directory} has no *.safetensors weights; save the model with save_pretrained")
    if not any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"model.source: {directory} has no tokenizer; save it there with save_pretrained")
    for path in sorted(directory.glob("*.safetensors")):
        try:
            shapes(path)
        except (OSError, WeightsError) as error:
            raise ModelError(f"model.source: {path} is damaged ({error}); copy or save it again") from None
    check_shards(directory)


def check_shards(directory: Path) -> None:
    """Check that the weights are one file, or all the files that their index names."""
    if (directory / WEIGHTS).is_file():
        return
    index = directory / f"{WEIGHTS}.index.json"
    if not index.is_file():
        names = ", ".join(sorted(path.name for path in directory.glob("*.safetensors"))[:3])
        raise ModelError(
            f"model.source: {directory} has neither {WEIGHTS} nor {index.name}, which names its parts (there are: "
            f"{names}); save the model with save_pretrained, an adapter merged into it"
        )
    parts = read_object(index).get("weight_map")
    if not isinstance(parts, dict) or not parts:
        raise ModelError(f"model.source: {index} names no weights; copy or save it again")
    tensors = {str(part): set[str]() for part in parts.values()}
    missing = [part for part in sorted(tensors) if not (directory / part).is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ModelError(
            f"model.source: {directory} lacks {', '.join(missing[:3])}{more} of {len(tensors)} files that {index.name} "
            "names; copy them there"
        )
    for part in tensors:
        tensors[part] = set(shapes(directory / part))
    lost = [name for name, part in parts.items() if name not in tensors[str(part)]]
    if lost:
        raise ModelError(
            f"model.source: {directory / str(parts[lost[0]])} lacks the tensor {lost[0]}, which {index.name} names; "
            "copy both again"
        )


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"model.source: {path} is damaged ({first_line(error)}); copy or save it again") from None
    if not isinstance(values, dict):
        raise ModelError(f"model.source: {path} is damaged (no JSON object); copy or save it again")
    return values


def max_length(directory: Path) -> int | None:
    """Return the longest context that the model was made for, in tokens; None where its configuration does not say."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    length = text.get("max_position_embeddings") or text.get("n_positions")
    return int(length) if length else None
