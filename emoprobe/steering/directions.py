"""Directions of the residual stream, and the files that hold them.

A file has `direction`, (n_layers, d), float32 with rows of unit length, and `direction.norm`, (n_layers,): the median
norm of the stream at each layer, in the fitting half of `control`, which doses are multiples of. Layers that were not
captured have zeros.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (teaches NumPy bfloat16, which safetensors asks it for)
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from emoprobe.config.science.capture import RESID_POST
from emoprobe.config.science.steering import DirectionFile
from emoprobe.config.section import CONTROL
from emoprobe.results import atomic
from emoprobe.results.activation_folder import METADATA, ActivationError, ActivationFolder, ActivationMetadata
from emoprobe.results.activations import load_block
from emoprobe.results.layout import Layout
from emoprobe.steering.grid import LEAST_TEXTS, SteeringGrid, ToneDirection
from emoprobe.text import hashed_number

FLOATS = ("F64", "F32", "F16", "BF16")
KEY = "direction"
SHUFFLED_OVER = "shuffled_over"  # of shuffled-label directions whose labels move with texts that several questions have


class DirectionError(ValueError):
    """A direction that cannot be had; the message says why and what to do."""


@dataclass(frozen=True)
class Stream:
    """The stream of some variants over the samples that all of them have: variant → (n, captured layers, d)."""

    values: dict[str, np.ndarray]
    layers: list[int]
    samples: list[str]


@dataclass(frozen=True)
class Lengths:
    """Median norm of the stream in `control` at each captured layer, and its width."""

    layers: list[int]
    norms: np.ndarray
    width: int


# Every direction of an experiment needs the same lengths, and many are made at once.
_one_at_a_time = threading.Lock()


def fit(grid: SteeringGrid, layout: Layout, name: str, folder: Path = Path()) -> None:
    """Make one direction of an experiment and write its file.

    Args:
        grid: what the experiment steers.
        layout: its files, the activations of the fitting half among them.
        name: of the direction.
        folder: where relative paths of direction files are taken from.

    Raises:
        DirectionError: the activations, or the file, do not give one.
        ActivationError: an activation folder is missing or damaged.
    """
    direction, position = grid.directions[name], grid.config.steering.fit.position
    made: dict[str, Any] = {"family": direction.family, "tone": direction.tone}
    lengths = stream_lengths(layout, grid.fitted, position)
    depth = grid.n_layers or lengths.layers[-1] + 1
    vectors = np.zeros((depth, lengths.width))
    if name in grid.config.steering.files:
        vectors = read_direction(grid.config.steering.files[name], folder, depth, lengths.width)
    elif direction.family == "random":
        vectors[lengths.layers] = _generator(grid, direction).standard_normal((len(lengths.layers), lengths.width))
    else:
        third = [CONTROL] if direction.family == "orthogonal" else []
        stream = read_stream(layout, [str(direction.tone), grid.reference, *third], grid.fitted, position)
        vectors[stream.layers] = MAKERS[direction.family](grid, direction, stream)
        made |= {"reference": grid.reference, "position": position, "samples": stream.samples}
        if direction.family == "shuffled" and _moves_texts(_blocks(grid, direction, stream)):
            made |= {SHUFFLED_OVER: "texts"}
    norms = np.zeros(depth, dtype=np.float32)
    norms[lengths.layers] = lengths.norms
    tensors = {KEY: unit(vectors, name, lengths.layers), f"{KEY}.norm": norms}
    # In one entry: safetensors writes several in an order that is another every time.
    atomic.write_bytes(layout.direction(name), save(tensors, metadata={KEY: json.dumps(made)}))


def stream_lengths(layout: Layout, samples: Sequence[str], position: str) -> Lengths:
    """The lengths of the stream in some samples, remembered as long as their activations are the same files.

    Raises:
        DirectionError, ActivationError: as `read_stream`.
    """
    try:
        dates = tuple((layout.activations(CONTROL, sample) / METADATA).stat().st_mtime_ns for sample in samples)
    except OSError as error:
        what = "run again" if isinstance(error, FileNotFoundError) else "give this user the right to read it"
        raise ActivationError(f"{error.filename}: {error.strerror}; {what}") from None
    with _one_at_a_time:
        return _stream_lengths(layout, tuple(samples), position, dates)


@lru_cache(maxsize=4)
def _stream_lengths(layout: Layout, samples: tuple[str, ...], position: str, dates: tuple[int, ...]) -> Lengths:
    stream = read_stream(layout, [CONTROL], samples, position)
    values = stream.values[CONTROL]
    return Lengths(stream.layers, np.median(np.linalg.norm(values, axis=2), axis=0), values.shape[2])


def read_stream(layout: Layout, variants: list[str], samples: Sequence[str], position: str) -> Stream:
    """The stream of some variants at a position, in those of some samples that all of them have.

    Raises:
        DirectionError: there is no such sample.
        ActivationError: an activation folder is missing, damaged, or without the hook point or position.
    """
    kept: list[str] = []
    layers: list[int] = []
    names: list[str] = []
    for sample in samples:
        folders = [ActivationFolder.read(layout.activations(variant, sample)).metadata for variant in variants]
        if any(metadata.error is not None for metadata in folders):
            continue
        if RESID_POST not in folders[0].hook_points or position not in folders[0].position_names:
            raise ActivationError(f"{layout.activations(variants[0], sample)}: holds no {RESID_POST} at {position}")
        # What stands in for a text that a variant does not have is no difference that the text makes.
        if len(variants) == 1 or not any(_stands_in(metadata, position) for metadata in folders):
            kept.append(sample)
            layers, names = folders[0].layers, folders[0].position_names
    if not kept:
        raise DirectionError(
            f"no question of the fitting half has activations of {' and '.join(variants)} at {position}; "
            "choose another steering.fit.position, or see which captures failed"
        )
    values = {}
    for variant in variants:
        block = load_block(layout, [(variant, sample) for sample in kept], RESID_POST, 0, len(layers), names)
        values[variant] = block[position].astype(np.float64)
    return Stream(values, layers, kept)


def _stands_in(metadata: ActivationMetadata, name: str) -> bool:
    """Return whether a neighbour replaces the part of the conversation that a position is named after."""
    positions = metadata.positions
    return positions != "all" and any(position.name == name and position.empty for position in positions)


def unit(vectors: np.ndarray, name: str, layers: list[int]) -> np.ndarray:
    """Rows of unit length, float32; zeros stay where nothing was captured.

    Raises:
        DirectionError: a row of one of the layers is zero or not finite.
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    wrong = [layer for layer in layers if not 0 < lengths[layer, 0] < np.inf]
    if wrong:
        raise DirectionError(f"direction {name} is zero, or not finite, at layers {', '.join(map(str, wrong))}")
    return np.where(lengths > 0, vectors / np.where(lengths > 0, lengths, 1.0), 0.0).astype(np.float32)


def _tone(grid: SteeringGrid, direction: ToneDirection, stream: Stream) -> np.ndarray:
    """Difference of means between tone and reference, (layers, d)."""
    rows: np.ndarray = _differences(grid, direction, stream).mean(0)
    return rows


def _probe(grid: SteeringGrid, direction: ToneDirection, stream: Stream) -> np.ndarray:
    """Weights of the discriminant between tone and reference for the raw stream, (layers, d).

    w = S⁻¹ δ, with S = (1 − γ) C + γ tr(C)/d · I of the covariance C within both variants after features were scaled
    to unit variance (Friedman 1989), γ being `probes.shrinkage`. The inverse is that of a matrix as large as there are
    rows (Woodbury).
    """
    gamma = grid.config.probes.shrinkage
    tone, reference = stream.values[str(direction.tone)], stream.values[grid.reference]
    scale = np.concatenate([tone, reference]).std(0)
    scale = np.where(scale > 0, scale, 1.0)
    weights = np.empty(tone.shape[1:])
    for layer in range(tone.shape[1]):
        ours, theirs = tone[:, layer] / scale[layer], reference[:, layer] / scale[layer]
        delta = ours.mean(0) - theirs.mean(0)
        rows = np.concatenate([ours - ours.mean(0), theirs - theirs.mean(0)])
        within = (1 - gamma) / len(rows)
        floor = gamma * np.square(rows).sum() / len(rows) / rows.shape[1] or 1.0
        inner = np.eye(len(rows)) * floor / within + rows @ rows.T if within else None
        solved = delta if inner is None else delta - rows.T @ np.linalg.solve(inner, rows @ delta)
        weights[layer] = solved / floor / scale[layer]
    return weights


def _orthogonal(grid: SteeringGrid, direction: ToneDirection, stream: Stream) -> np.ndarray:
    """The tone's direction without its part along what the reference's text adds to `control`, (layers, d)."""
    raw = _tone(grid, direction, stream)
    added = (stream.values[grid.reference] - stream.values[CONTROL]).mean(0)
    added = added / np.maximum(np.linalg.norm(added, axis=1, keepdims=True), 1e-30)
    rows: np.ndarray = raw - (raw * added).sum(1, keepdims=True) * added
    return rows


def _shuffled(grid: SteeringGrid, direction: ToneDirection, stream: Stream) -> np.ndarray:
    """The difference of means with tone and reference exchanged in half the blocks of texts, (layers, d).

    A text that several questions have moves as a whole: what it does by its wording is in all of its questions. Half
    the difference of the means over both halves has nothing of the tone, whatever the sizes of the blocks.
    """
    differences, blocks = _differences(grid, direction, stream), _blocks(grid, direction, stream)
    together = _moves_texts(blocks)
    signs = np.where(np.arange(blocks.max() + 1 if together else len(blocks)) % 2, -1.0, 1.0)
    _generator(grid, direction).shuffle(signs)
    rows: np.ndarray
    if together:
        kept = signs[blocks] > 0
        rows = (differences[kept].mean(0) - differences[~kept].mean(0)) / 2
    else:
        rows = (differences * signs[:, None, None]).mean(0)
    return rows


def _blocks(grid: SteeringGrid, direction: ToneDirection, stream: Stream) -> np.ndarray:
    """Shape (n,): the block of texts of each sample of a stream, numbered from 0."""
    block_of = grid.text_blocks(str(direction.tone))
    numbers: np.ndarray = np.unique([block_of[sample] for sample in stream.samples], return_inverse=True)[1]
    return numbers


def _moves_texts(blocks: np.ndarray) -> bool:
    """Return whether labels are shuffled over texts and not over questions.

    With fewer texts than a verdict takes there is none, and questions are exchanged.
    """
    return LEAST_TEXTS <= len(np.unique(blocks)) < len(blocks)


MAKERS: dict[str, Callable[[SteeringGrid, ToneDirection, Stream], np.ndarray]] = {
    "tone": _tone,
    "probe": _probe,
    "orthogonal": _orthogonal,
    "shuffled": _shuffled,
}


def _differences(grid: SteeringGrid, direction: ToneDirection, stream: Stream) -> np.ndarray:
    """Tone minus reference, (n, layers, d)."""
    rows: np.ndarray = stream.values[str(direction.tone)] - stream.values[grid.reference]
    return rows


def _generator(grid: SteeringGrid, direction: ToneDirection) -> np.random.Generator:
    """Random numbers that follow from the experiment's seed and the direction's name."""
    return np.random.default_rng(hashed_number(f"{grid.config.experiment.seed}:{direction.name}", 64))


def read_direction(file: DirectionFile, folder: Path, n_layers: int | None, width: int | None) -> np.ndarray:
    """A direction out of any file, (n_layers, d).

    Args:
        file: which.
        folder: where a relative path is taken from.
        n_layers: of the model; None: not known, so a vector for all layers stays one row.
        width: of the model; None: not known.

    Raises:
        DirectionError: it is missing, no safetensors file, or holds no such direction of this model.
    """
    path = folder / Path(file.path).expanduser()
    try:
        with safe_open(path, "np") as tensors:
            if file.key not in tensors.keys():  # noqa: SIM118 (no mapping)
                raise DirectionError(
                    f"{path} has no tensor {file.key!r} (it has {', '.join(tensors.keys()) or 'none'})"
                )
            part = tensors.get_slice(file.key)
            shape = list(part.get_shape())
            if part.get_dtype() not in FLOATS:
                raise DirectionError(
                    f"{path}: {file.key} has values of type {part.get_dtype()}; accepted: {', '.join(FLOATS)}"
                )
            if file.row is not None and (len(shape) != 2 or file.row >= shape[0]):
                raise DirectionError(f"{path}: {file.key} has the shape {shape}, so no row {file.row}")
            tensor = (part[:] if file.row is None else part[file.row]).astype(np.float64)
    except (OSError, SafetensorError) as error:
        raise DirectionError(f"{path} cannot be read ({error})") from None
    rows = tensor[None] if tensor.ndim == 1 else tensor
    if rows.ndim != 2 or (tensor.ndim == 2 and n_layers is not None and len(rows) != n_layers):
        raise DirectionError(
            f"{path}: {file.key} has the shape {shape}; accepted: one vector, or one for each of the model's "
            f"{n_layers or ''} layers, or a matrix and a `row` of it"
        )
    if width is not None and rows.shape[1] != width:
        raise DirectionError(f"{path}: {file.key} has {rows.shape[1]} values, the model's stream {width}")
    return np.repeat(rows, n_layers, axis=0) if tensor.ndim == 1 and n_layers is not None else rows
