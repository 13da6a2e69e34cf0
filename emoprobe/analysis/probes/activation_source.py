"""Where the activations of the probes come from: a few layers at a time, out of an experiment's folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from emoprobe.conversations.samples import draw_id
from emoprobe.results.activation_folder import ActivationError, ActivationFolder, ActivationMetadata
from emoprobe.results.activations import load_block
from emoprobe.results.layout import Layout

# (first layer, end, hook point) → {position: (n, layers, d) float16}
Load = Callable[[int, int, str], dict[str, np.ndarray]]


@dataclass(frozen=True)
class ActivationSource:
    """The activations of some rows of a table.

    `rows` are the places of those rows in the table, n of them; `load` reads a few layers of them; `empty` tells for
    each position which of the n a neighbour stands in for.
    """

    rows: np.ndarray
    layers: list[int]
    hook_points: list[str]
    positions: list[str]
    d: int
    load: Load
    empty: dict[str, np.ndarray]


def folder_source(layout: Layout, table: pd.DataFrame) -> ActivationSource:
    """The activations of the trajectories in a table, read from their folders when they are needed.

    Trajectories that failed, those that no server captured, and those without an activation folder are left out.

    Raises:
        ActivationError: no trajectory has activations; a folder is damaged, or holds other layers, hook points or
            positions than the first; or every token was captured, so that positions differ in number.
    """
    pairs = [(variant, draw_id(sample, draw)) for variant, sample, draw in _keys(table)]
    failed = table["failure"].notna().to_numpy()
    rows = np.array(
        [
            number
            for number, pair in enumerate(pairs)
            if not failed[number] and layout.activations(*pair).is_dir()
        ],
        dtype=int,
    )  # fmt: skip
    if not len(rows):
        raise ActivationError(f"no trajectory of {layout.root} has activations")
    pairs = [pairs[row] for row in rows]
    folders = [ActivationFolder.read(layout.activations(*pair)).metadata for pair in pairs]
    captured = [number for number, metadata in enumerate(folders) if metadata.error is None]
    if not captured:
        raise ActivationError(f"no trajectory of {layout.root} has activations")
    rows, pairs, folders = rows[captured], [pairs[at] for at in captured], [folders[at] for at in captured]
    first = folders[0]
    if first.positions == "all":
        raise ActivationError("probes need named positions: capture.positions is all; use load_activations instead")
    for pair, metadata in zip(pairs, folders, strict=True):
        same = metadata.position_names == first.position_names and metadata.layers == first.layers
        if not same or metadata.hook_points != first.hook_points:
            raise ActivationError(
                f"{layout.activations(*pair)}: was captured with other settings; delete it and run again"
            )
    positions = first.position_names
    empty = {
        name: np.array([_is_empty(metadata, number) for metadata in folders]) for number, name in enumerate(positions)
    }
    hook_points = first.hook_points
    return ActivationSource(
        rows=rows,
        layers=first.layers,
        hook_points=hook_points,
        positions=positions,
        d=first.shapes[hook_points[0]][2],
        load=lambda begin, end, hook_point: load_block(layout, pairs, hook_point, begin, end, positions),
        empty=empty,
    )


def _keys(table: pd.DataFrame) -> list[tuple[str, str, int]]:
    draws = table["draw"].fillna(1).astype(int)
    return list(zip(table["variant"].astype(str), table["sample_id"].astype(str), draws, strict=True))


def _is_empty(metadata: ActivationMetadata, number: int) -> bool:
    return metadata.positions != "all" and metadata.positions[number].empty
