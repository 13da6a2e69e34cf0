"""The activation folders of an experiment as the source of its probes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from scripts.lib.activations import ActivationError, load_block, read_metadata
from scripts.lib.paths import Layout
from scripts.lib.probes.experiment import Source


def folder_source(layout: Layout, table: pd.DataFrame) -> Source:
    """The activations of the trajectories in a table, read from their folders when they are needed.

    Raises:
        ActivationError: a folder is missing, or holds other layers, hook points or positions than the first; or every
            token was captured, so that positions differ in number from one trajectory to the next.
    """
    pairs = list(zip(table["variant"].astype(str), table["sample_id"].astype(str), strict=True))
    found = [read_metadata(layout.activations(*pair)) for pair in pairs]
    first = found[0]
    if first["positions"] == "all":
        raise ActivationError("probes need named positions: capture.positions is all; use load_activations instead")
    for pair, metadata in zip(pairs, found, strict=True):
        names = [position["name"] for position in metadata["positions"]]
        same = [position["name"] for position in first["positions"]] == names
        if not same or any(metadata[key] != first[key] for key in ("layers", "hook_points")):
            raise ActivationError(
                f"{layout.activations(*pair)}: was captured with other settings; delete it and run again"
            )
    positions = [position["name"] for position in first["positions"]]
    empty = {
        name: np.array([metadata["positions"][number]["empty"] for metadata in found])
        for number, name in enumerate(positions)
    }
    hook_points = first["hook_points"]
    return Source(
        layers=first["layers"],
        hook_points=hook_points,
        positions=positions,
        d=first["shapes"][hook_points[0]][2],
        load=lambda begin, end, hook_point: load_block(layout, pairs, hook_point, begin, end, positions),
        empty=empty,
    )
