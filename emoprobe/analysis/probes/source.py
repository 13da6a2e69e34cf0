"""The activation folders of an experiment as the source of its probes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from emoprobe.analysis.probes.experiment import Source
from emoprobe.results.activation_folder import ActivationError, ActivationFolder, ActivationMetadata
from emoprobe.results.activations import load_block
from emoprobe.results.layout import Layout
from emoprobe.tasks.samples import draw_id


def folder_source(layout: Layout, table: pd.DataFrame) -> Source:
    """The activations of the trajectories in a table, read from their folders when they are needed.

    Raises:
        ActivationError: a folder is missing, or holds other layers, hook points or positions than the first; or every
            token was captured, so that positions differ in number from one trajectory to the next.
    """
    names = map(draw_id, table["sample_id"].astype(str), table["draw"] if "draw" in table else [1] * len(table))
    pairs = list(zip(table["variant"].astype(str), names, strict=True))
    found = [ActivationFolder.read(layout.activations(*pair)).metadata for pair in pairs]
    first = found[0]
    if first.positions == "all":
        raise ActivationError("probes need named positions: capture.positions is all; use load_activations instead")
    for pair, metadata in zip(pairs, found, strict=True):
        same = metadata.position_names == first.position_names and metadata.layers == first.layers
        if not same or metadata.hook_points != first.hook_points:
            raise ActivationError(
                f"{layout.activations(*pair)}: was captured with other settings; delete it and run again"
            )
    positions = first.position_names
    empty = {
        name: np.array([_is_empty(metadata, number) for metadata in found]) for number, name in enumerate(positions)
    }
    hook_points = first.hook_points
    return Source(
        layers=first.layers,
        hook_points=hook_points,
        positions=positions,
        d=first.shapes[hook_points[0]][2],
        load=lambda begin, end, hook_point: load_block(layout, pairs, hook_point, begin, end, positions),
        empty=empty,
    )


def _is_empty(metadata: ActivationMetadata, number: int) -> bool:
    return metadata.positions != "all" and metadata.positions[number].empty
