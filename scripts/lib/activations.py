"""Activation folders: the manifest that lists them, their check, and arrays for analysts.

A folder holds `activations.safetensors`, one tensor a hook point of shape (n_layers, n_positions, d), and
`metadata.json`, which names its layers, positions and tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from safetensors import SafetensorError, safe_open

from scripts.lib.paths import ACTIVATION_FILES, Layout

TENSORS, METADATA = ACTIVATION_FILES


class ActivationError(ValueError):
    """Activations that are missing, damaged, or do not hold what was asked for."""


@dataclass(frozen=True)
class Activations:
    """Activations of many trajectories at one hook point and position.

    `values` has shape (n, n_layers, d); row i belongs to row i of `index`, which has the columns `variant`,
    `sample_id` and `empty` (whether a neighbour stood in for a part of the conversation that is empty). `layers` are
    the indices of the layers.
    """

    values: np.ndarray
    index: pd.DataFrame
    layers: list[int]


def read_metadata(folder: Path) -> dict[str, Any]:
    """The `metadata.json` of a folder.

    Raises:
        ActivationError: it is missing or damaged.
    """
    path = folder / METADATA
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("no JSON object")
    except (OSError, ValueError) as error:
        raise ActivationError(f"{path} is damaged ({error}); delete its folder and run again") from None
    return found


def manifest(layout: Layout, pairs: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The content of `activations_manifest.json`: `variant/sample` → where it lies and what it is."""
    entries = {}
    for variant, sample in pairs:
        folder = layout.activations(variant, sample)
        found = read_metadata(folder)
        entries[f"{variant}/{sample}"] = {
            "save_dir": str(folder.relative_to(layout.root)),
            "request_id": found.get("request_id"),
            "sha256": found.get("sha256"),
            "bytes": found.get("bytes"),
        }
    return entries


def check(folder: Path, entry: dict[str, Any] | None = None, token_ids: list[int] | None = None) -> list[str]:
    """What is wrong with a folder, one line each; an empty list where all is well.

    Args:
        folder: the activation folder.
        entry: its entry in the manifest, to compare hash and size with.
        token_ids: the tokens of its trajectory, to compare with those that were captured.
    """
    path = folder / TENSORS
    try:
        found = read_metadata(folder)
        content = path.read_bytes()
    except ActivationError as error:
        return [str(error)]
    except OSError as error:
        return [f"{path}: {error.strerror or error}; delete its folder and run again"]
    problems = []
    digest = hashlib.sha256(content).hexdigest()
    for source, expected in (("metadata.json", found), ("the manifest", entry)):
        if expected is not None and (expected.get("sha256"), expected.get("bytes")) != (digest, len(content)):
            problems.append(f"{path}: hash or size is not what {source} says; delete its folder and run again")
    if token_ids is not None and found.get("token_ids") != token_ids:
        problems.append(f"{folder}: was captured from other tokens than the trajectory's; delete it and run again")
    try:
        problems += _check_tensors(path, found)
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        problems.append(f"{path}: is damaged ({error}); delete its folder and run again")
    return problems


def _check_tensors(path: Path, found: dict[str, Any]) -> list[str]:
    problems = []
    n_positions = len(found["token_ids"]) if found["positions"] == "all" else len(found["positions"])
    with safe_open(path, "pt") as file:
        if sorted(file.keys()) != sorted(found["hook_points"]):
            problems.append(f"{path}: has {', '.join(file.keys())}, not {', '.join(found['hook_points'])}")
        for point in file.keys():  # noqa: SIM118 (no mapping)
            tensor = file.get_tensor(point)
            if tuple(tensor.shape[:2]) != (len(found["layers"]), n_positions) or tensor.dim() != 3:
                problems.append(f"{path}: {point} has shape {tuple(tensor.shape)}")
            if str(tensor.dtype) != f"torch.{found['dtype']}":
                problems.append(f"{path}: {point} has dtype {tensor.dtype}, not {found['dtype']}")
            if not bool(tensor.isfinite().all()):
                problems.append(f"{path}: {point} has values that are not finite")
    return problems


def find_pairs(layout: Layout) -> list[tuple[str, str]]:
    """Variant and sample of every activation folder there is."""
    folders = sorted((layout.root / "activations").glob(f"*/*/{METADATA}"))
    return [(path.parent.parent.name, path.parent.name) for path in folders]


def load_activations(
    experiment: str | Path,
    hook_point: str,
    position: str | int,
    *,
    variants: Sequence[str] | None = None,
    samples: Sequence[str] | None = None,
    layers: Sequence[int] | None = None,
    dtype: str = "float32",
) -> Activations:
    """Read the activations of any part of an experiment, and nothing else, from the disk.

    Args:
        experiment: folder of the experiment.
        hook_point: such as `input_layernorm.output`.
        position: a captured position by name (or index, as it was asked for); where all tokens were captured, an index,
            negative ones from the end.
        variants: which variants; default: all.
        samples: which samples; default: all.
        layers: which layers; default: all that were captured.
        dtype: of the array.

    Raises:
        ActivationError: nothing matches, or a folder lacks the hook point, position or a layer.
    """
    layout = Layout(Path(experiment))
    pairs = [
        (variant, sample)
        for variant, sample in find_pairs(layout)
        if (variants is None or variant in variants) and (samples is None or sample in samples)
    ]
    if not pairs:
        raise ActivationError(f"no activations in {layout.root} match")
    if variants is not None:
        order = {name: number for number, name in enumerate(variants)}
        pairs.sort(key=lambda pair: order[pair[0]])
    first = read_metadata(layout.activations(*pairs[0]))
    chosen = list(first["layers"]) if layers is None else [int(layer) for layer in layers]
    values: np.ndarray | None = None
    rows = []
    for number, (variant, sample) in enumerate(pairs):
        folder = layout.activations(variant, sample)
        found = first if number == 0 else read_metadata(folder)
        column, empty = _column(folder, found, position)
        block = _read(folder, found, hook_point, chosen, column)
        if values is None:
            values = np.empty((len(pairs), *block.shape), dtype=dtype)
        values[number] = block
        rows.append((variant, sample, empty))
    assert values is not None
    return Activations(values, pd.DataFrame(rows, columns=["variant", "sample_id", "empty"]), chosen)


def load_block(
    layout: Layout, pairs: Sequence[tuple[str, str]], hook_point: str, first: int, end: int, positions: Sequence[str]
) -> dict[str, np.ndarray]:
    """Some captured layers of many pairs at every named position: position → (n, end - first, d), float16 or float32.

    Args:
        layout: the experiment.
        pairs: variant and sample of each row.
        hook_point: such as `input_layernorm.output`.
        first: row of the first layer in the folders' tensors.
        end: row after the last.
        positions: names of captured positions, in the order of the folders' tensors.

    Raises:
        ActivationError: a folder is damaged or has another shape than the first.
    """
    blocks: dict[str, np.ndarray] = {}
    for number, pair in enumerate(pairs):
        path = layout.activations(*pair) / TENSORS
        try:
            with safe_open(path, "pt") as file:
                found = file.get_slice(hook_point)[first:end]
            values = found.numpy() if str(found.dtype) == "torch.float16" else found.float().numpy()
            for column, position in enumerate(positions):
                if position not in blocks:
                    blocks[position] = np.empty((len(pairs), *values[:, column].shape), dtype=values.dtype)
                blocks[position][number] = values[:, column]
        except (OSError, SafetensorError, ValueError, IndexError) as error:
            raise ActivationError(f"{path} is damaged ({error}); delete its folder and run again") from None
    return blocks


def _column(folder: Path, found: dict[str, Any], position: str | int) -> tuple[int, bool]:
    """Where a position stands in a folder's tensors, and whether a neighbour stands in for it."""
    if found["positions"] == "all":
        length = len(found["token_ids"])
        if isinstance(position, int) and -length <= position < length:
            return position % length, False
        raise ActivationError(f"{folder}: every token was captured; give an index below {length}, not {position!r}")
    for column, known in enumerate(found["positions"]):
        if known["name"] == str(position):
            return column, bool(known["empty"])
    names = ", ".join(known["name"] for known in found["positions"])
    raise ActivationError(f"{folder}: position {position!r} was not captured (captured: {names})")


def _read(folder: Path, found: dict[str, Any], hook_point: str, layers: list[int], column: int) -> np.ndarray:
    """(n_layers, d) out of one folder; only the bytes of that position are read."""
    if hook_point not in found["hook_points"]:
        known = ", ".join(found["hook_points"])
        raise ActivationError(f"{folder}: hook point {hook_point!r} was not captured (captured: {known})")
    places = {layer: row for row, layer in enumerate(found["layers"])}
    missing = [layer for layer in layers if layer not in places]
    if missing:
        raise ActivationError(f"{folder}: layers {missing} were not captured (captured: {found['layers']})")
    try:
        with safe_open(folder / TENSORS, "pt") as file:
            block = file.get_slice(hook_point)[:, column]
    except (OSError, SafetensorError) as error:
        raise ActivationError(f"{folder / TENSORS} is damaged ({error}); delete its folder and run again") from None
    result: np.ndarray = block[[places[layer] for layer in layers]].float().numpy()
    return result
