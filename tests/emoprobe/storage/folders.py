"""Activation folders as the server writes them, and what the tests of this folder ask of them."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from emoprobe.results.layout import Layout

POINTS = ("resid_pre", "resid_post")
POSITIONS = ("last_prompt", "response_mean", "response_last")
LAYERS, D = 4, 8192  # a layer of a tensor is 48 KiB, a tensor 192 KiB: more than what is read along


def write(layout: Layout, variants: int = 2, samples: int = 6, d: int = D, seed: int = 0) -> list[tuple[str, str]]:
    """Folders of some variants and samples, and the manifest; return the pairs."""
    generator = np.random.default_rng(seed)
    pairs = [(f"v{variant}", f"q_{sample:04d}") for variant in range(variants) for sample in range(1, samples + 1)]
    entries = {}
    for variant, sample in pairs:
        content, metadata = folder_files(generator, d, f"{variant}-{sample}")
        folder = layout.activations(variant, sample)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "activations.safetensors").write_bytes(content)
        (folder / "metadata.json").write_text(json.dumps(metadata) + "\n")
        entries[f"{variant}/{sample}"] = {
            "save_dir": f"activations/{variant}/{sample}",
            "request_id": metadata["request_id"],
            "sha256": metadata["sha256"],
            "bytes": metadata["bytes"],
        }
    layout.manifest.write_text(json.dumps(entries))
    return pairs


def folder_files(generator: np.random.Generator, d: int, request_id: str) -> tuple[bytes, dict[str, object]]:
    """The tensors' file and the metadata of one folder."""
    tensors = {
        point: generator.normal(size=(LAYERS, len(POSITIONS), d)).astype(np.float16 if d > 64 else np.float32)
        for point in POINTS
    }
    content = save(tensors)
    metadata = {
        "request_id": request_id,
        "dtype": str(next(iter(tensors.values())).dtype),
        "layers": list(range(LAYERS)),
        "hook_points": list(POINTS),
        "positions": [{"name": name, "span": [at, at + 1]} for at, name in enumerate(POSITIONS)],
        "token_ids": [1, 2, 3],
        "shapes": {point: list(tensor.shape) for point, tensor in tensors.items()},
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    return content, metadata


def files(layout: Layout) -> dict[str, bytes]:
    """Every file of the activations, by its path."""
    root = layout.root / "activations"
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def dates(folder: Path) -> dict[str, int]:
    """The date of every JSON file of an experiment but those of the storage's own."""
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*.json"))
        if not re.fullmatch("activations_(pushed|pulled|shards).json", path.name)
    }
