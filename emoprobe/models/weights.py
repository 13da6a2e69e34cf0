"""The header of a safetensors file: its tensors, their types and shapes."""

from __future__ import annotations

import json
from pathlib import Path

LENGTH = 8  # bytes of the header's length, little-endian


class WeightsError(ValueError):
    """A file that is no safetensors file, or is cut off."""


def shapes(path: Path) -> dict[str, list[int]]:
    """The tensors of a safetensors file and their shapes.

    Raises:
        WeightsError: it is none, or has not as many bytes as its header says.
        OSError: it cannot be read.
    """
    return {name: shape for name, (_, shape) in tensors(path).items()}


def tensors(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Return each tensor of a safetensors file with its type (`BF16`) and its shape; raises as `shapes`."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(LENGTH), "little")
        if size < LENGTH or length > size - LENGTH:
            raise WeightsError("it has no safetensors header")
        content = file.read(length)
    try:
        entries = {name: entry for name, entry in json.loads(content).items() if name != "__metadata__"}
        data = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
        described = {
            name: (str(entry["dtype"]), [int(extent) for extent in entry["shape"]]) for name, entry in entries.items()
        }
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise WeightsError("its safetensors header cannot be understood") from None
    if LENGTH + length + data != size:
        raise WeightsError(f"it has {size} bytes, its header names {LENGTH + length + data}")
    return described
