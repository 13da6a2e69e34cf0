"""Projections of activations on directions, to colour positions and tokens by.

A projection is shown as its distance from the mean over all captured conversations at the same hook point, layer and
position, in standard deviations. The directions of a named position are those that were fitted there.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from safetensors import safe_open

from emoprobe.explorer.scripts import Pages, Scripts
from emoprobe.explorer.search import encoded
from emoprobe.results.activation_folder import METADATA, ActivationFolder, ActivationMetadata
from emoprobe.results.activations import load_block, read_tensors
from emoprobe.results.layout import Layout, draw_id

MAX_DIRECTIONS = 20
STEP = 16  # steps of a standard deviation
MAX_BLOCK = 2**27  # values in memory at once


@dataclass(frozen=True)
class ShownDirection:
    """A direction that activations are projected on.

    `tensors` has, for each hook point and position, (n_layers, d) unit vectors, or None where there is none.
    """

    name: str
    about: str
    tensors: dict[tuple[str, str], np.ndarray]


@dataclass(frozen=True)
class FittedDirections:
    """Directions that the probes of an experiment fitted, and the layers of their vectors."""

    directions: list[ShownDirection] = field(default_factory=list)
    layers: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Projections:
    """Standardised projections of the captured conversations: (n, directions, hook points, layers, positions)."""

    keys: list[tuple[int, int]]
    values: np.ndarray
    means: np.ndarray
    deviations: np.ndarray
    directions: list[ShownDirection]
    hook_points: list[str]
    layers: list[int]
    positions: list[str]
    spans: list[list[Any]]

    @classmethod
    def read(
        cls, layout: Layout, rows: Sequence[dict[str, Any]], questions: dict[str, int], chosen: FittedDirections
    ) -> Projections | None:
        """Project the activations of some trajectories; None where there are no directions or no activations.

        Raises:
            DamagedError, ActivationError: a file is damaged; the message names it.
        """
        pairs: list[tuple[str, str]] = []
        keys: list[tuple[int, int]] = []
        captured: list[ActivationMetadata] = []
        for number, row in enumerate(rows):
            pair = row["variant"], draw_id(row["sample_id"], row["draw"])
            if (layout.activations(*pair) / METADATA).exists():
                metadata = ActivationFolder.read(layout.activations(*pair)).metadata
                if metadata.error is None and (not captured or _shape(metadata) == _shape(captured[0])):
                    captured.append(metadata)
                    pairs.append(pair)
                    keys.append((number, questions[row["sample_id"]]))
        if not captured or not chosen.directions or captured[0].positions == "all":
            return None
        values = _project(layout, pairs, chosen.directions, captured[0])
        spans = [_spans(metadata) for metadata in captured]
        # A neighbour stands in for an empty part: it says nothing of that position.
        there = np.array([[span is None or not span[2] for span in row] for row in spans])
        means, deviations = _moments(values, there)
        scaled = (values - means) / np.where(deviations > 0, deviations, 1.0)
        return cls(
            keys=keys,
            values=np.clip(np.rint(scaled * STEP), -127, 127).astype(np.int8),
            means=means,
            deviations=deviations,
            directions=chosen.directions,
            hook_points=captured[0].hook_points,
            layers=captured[0].layers,
            positions=captured[0].position_names,
            spans=spans,
        )

    def write(self, pages: Pages, scripts: Scripts, notes: list[str], names: Sequence[str]) -> dict[str, Any]:
        """Write the projections; return what the index says of them. `names` are the ids of all questions."""
        numbered = zip(self.keys, self.values, self.spans, strict=True)
        for question, group in groupby(numbered, key=lambda entry: entry[0][1]):
            entries = [(key[0], base64.b64encode(values.tobytes()).decode(), spans) for key, values, spans in group]
            pages.add(question, entries, sum(len(entry[1]) for entry in entries))
        pages.flush()
        notes += pages.left_out("projections", names)
        scale = {"means": _rounded(self.means), "deviations": _rounded(self.deviations)}
        scripts.add("scale", scale, needed=True)
        return {
            "rows": encoded([number for number, _ in self.keys]),
            "directions": [[direction.name, direction.about] for direction in self.directions],
            "hooks": self.hook_points,
            "layers": self.layers,
            "positions": self.positions,
            "n": len(self.keys),
            "step": STEP,
            "pages": sorted(pages.places.items()),
        }


def fitted_directions(layout: Layout) -> FittedDirections:
    """Return at most 20 directions: valence, probes of valence and correctness, the tones; none without a file.

    Raises:
        DamagedError: the file is damaged.
    """
    if not layout.directions().exists():
        return FittedDirections()
    tensors = read_tensors(layout.directions())
    with safe_open(layout.directions(), "np") as file:
        said = file.metadata() or {}
    variants, reference = json.loads(said.get("variants", "[]")), json.loads(said.get("reference", "null"))
    parts: dict[tuple[str, int | None], dict[tuple[str, str], np.ndarray]] = {}
    for name, tensor in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "probe":
            target, _, rest = rest.partition("/")
            kind = f"probe/{target}"
        if kind not in ("valence", "probe/valence", "probe/correct", "diff_means"):
            continue
        point, _, position = rest.rpartition("/")
        rows = [(None, tensor)] if kind == "valence" else list(enumerate(tensor))
        for number, vectors in rows:
            if vectors.any():
                parts.setdefault((kind, number), {})[point, position] = vectors
    named: dict[tuple[str, int | None], tuple[str, str]] = {
        ("valence", None): ("valence", "mean of the positive minus mean of the negative tones"),
        ("probe/valence", 0): ("valence (probe)", "weights of the probe for positive against negative tones"),
        ("probe/correct", 0): ("correct (probe)", "weights of the probe for right against wrong answers"),
    }
    for place, name in enumerate(variants):
        named["diff_means", place] = name, f"mean of {name} minus mean of {reference}"
    found = [ShownDirection(*words, parts[key]) for key, words in named.items() if key in parts]
    return FittedDirections(found[:MAX_DIRECTIONS], json.loads(said.get("layers", "[]")))


def _project(
    layout: Layout, pairs: list[tuple[str, str]], directions: list[ShownDirection], like: ActivationMetadata
) -> np.ndarray:
    """(n, directions, hook points, layers, positions): zeros where a direction was not fitted."""
    names, depth = like.position_names, len(like.layers)
    values = np.zeros((len(pairs), len(directions), len(like.hook_points), depth, len(names)), dtype=np.float32)
    for hook, point in enumerate(like.hook_points):
        width = like.shapes[point][2]
        step = max(1, MAX_BLOCK // (len(pairs) * len(names) * width))
        for begin in range(0, depth, step):
            end = min(begin + step, depth)
            blocks = load_block(layout, pairs, point, begin, end, names)
            for column, position in enumerate(names):
                there = [n for n, direction in enumerate(directions) if (point, position) in direction.tensors]
                if there:
                    vectors = np.stack([directions[n].tensors[point, position][begin:end] for n in there])
                    activations = blocks[position].astype(np.float32).transpose(1, 0, 2)
                    along = activations @ vectors.transpose(1, 2, 0)  # (layers, n, directions)
                    values[:, :, hook, begin:end, column][:, there] = along.transpose(1, 2, 0)
    return values


def _moments(values: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of (n, …, positions) over the rows that are there, (n, positions)."""
    weights = there.reshape(len(there), *(1 for _ in values.shape[1:-1]), there.shape[1]).astype(np.float32)
    count = np.maximum(weights.sum(0), 1.0)
    means = (values * weights).sum(0) / count
    return means, np.sqrt(((values - means) ** 2 * weights).sum(0) / count)


def _shape(metadata: ActivationMetadata) -> tuple[Any, ...]:
    return metadata.layers, metadata.hook_points, metadata.position_names


def _spans(metadata: ActivationMetadata) -> list[Any]:
    assert metadata.positions != "all"
    return [[*position.span, int(position.empty)] if position.span else None for position in metadata.positions]


def _rounded(values: np.ndarray) -> list[float]:
    return [float(f"{value:.4g}") for value in values.ravel()]
