"""Edits of the residual stream while a model runs: one row a sequence, so that sequences with different edits, and
with none, share a batch.

An edit acts on `resid_post`, a decoder layer's output h, at the tokens of the prompt, of the completion, or of both.
With the unit vector v of a direction and m, the length it is measured in, `add` makes h + dose * m * v, and `ablate`
makes h - (h·v) v.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from emoprobe.models.architecture import Architecture
from server.capture.schema import StreamEdit

MAX_FILE = 256 << 20
REMEMBERED = 16  # directions
ENDLESS = 1 << 62


class EditError(ValueError):
    """An edit that cannot be made; the message says why."""


@dataclass(frozen=True)
class LayerEdit:
    """An edit at one layer. `amount` is dose * m, None to ablate; `number` counts the edits of the request."""

    number: int
    layer: int
    direction: torch.Tensor
    amount: float | None
    phase: str


@dataclass
class SequenceEdits:
    """The edits of one sequence, whose first `prompt_tokens` tokens are its prompt.

    `tokens` counts, for each edit of the request, the tokens that it was applied to.
    """

    edits: tuple[LayerEdit, ...]
    prompt_tokens: int
    tokens: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Count from zero, before the sequence runs again from its first token."""
        self.tokens = {edit.number: 0 for edit in self.edits}


def layer_edits(edits: Sequence[StreamEdit], root: Path, architecture: Architecture) -> tuple[LayerEdit, ...]:
    """The edits of a request, layer by layer, in the order in which they were asked for.

    Raises:
        SteeringError: a file lies outside of the root, is missing, or another than it should be; or a direction has
            another width than the model.
        HookPointError: the model has no such layer.
    """
    layered = []
    for number, edit in enumerate(edits):
        layers = architecture.layers(edit.layers)
        rows = _file_rows(edit, root, layers, architecture) if edit.rows is None else _sent_rows(edit, layers)
        for layer, (vector, given) in zip(layers, rows, strict=True):
            if vector.shape != (architecture.d_model,):
                raise EditError(
                    f"the direction has {vector.shape[-1]} values, the model's stream {architecture.d_model}"
                )
            size = float(vector.norm())
            if not 0 < size < float("inf"):
                raise EditError("the direction is zero, or not finite")
            length = size if given is None else given
            amount = edit.dose * length if edit.operation == "add" else None
            if not 0 < length < float("inf") or abs(amount or 0.0) > torch.finfo(torch.float32).max:
                raise EditError(f"the length of the direction, {length:g}, or the dose times it is out of range")
            layered.append(LayerEdit(number, layer, vector / size, amount, edit.phase))
    return tuple(layered)


def _file_rows(
    edit: StreamEdit, root: Path, layers: list[int], model: Architecture
) -> list[tuple[torch.Tensor, float | None]]:
    """The direction at each of some layers, and the length that it is measured in there; None: its own."""
    vectors, lengths = _direction(edit, root, model)
    return [
        (
            vectors if vectors.dim() == 1 else vectors[layer],
            None if lengths is None else float(lengths if lengths.dim() == 0 else lengths[layer]),
        )
        for layer in layers
    ]


def _sent_rows(edit: StreamEdit, layers: list[int]) -> list[tuple[torch.Tensor, float | None]]:
    """The same where the request has it itself."""
    assert edit.rows is not None
    assert edit.lengths is not None
    try:
        content = base64.b64decode(edit.rows, validate=True)
    except binascii.Error as error:
        raise EditError(f"rows are no base64: {error}") from None
    if len(edit.lengths) != len(layers) or not content or len(content) % (4 * len(layers)):
        raise EditError(f"rows and lengths must have as many rows of float32 as there are layers, {len(layers)}")
    rows = torch.frombuffer(bytearray(content), dtype=torch.float32).reshape(len(layers), -1)
    return list(zip(rows, edit.lengths, strict=True))


def _direction(edit: StreamEdit, root: Path, model: Architecture) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The direction of an edit, and the length that it is measured in; None: its own."""
    if edit.values is not None:
        return torch.tensor(edit.values, dtype=torch.float32), None
    assert edit.file is not None
    assert edit.key is not None
    path = (root / edit.file).resolve()
    state = _state(path) if path.is_relative_to(root) and path.is_file() else None
    if state is None or state[2] > MAX_FILE:
        raise EditError(f"file {edit.file!r} is no file of at most {MAX_FILE >> 20} MiB below the server's root")
    return _read(path, edit.file, edit.key, edit.sha256, state, (model.n_layers, model.d_model))


@lru_cache(maxsize=REMEMBERED)
def _read(
    path: Path, file: str, key: str, sha256: str | None, state: tuple[int, ...], shape: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Read a direction of a model with so many layers, so wide; remembered while the file is in the same state.

    Thousands of requests name a few directions. No more than a direction is ever read into memory, whatever is in the
    file, so that neither a refused request nor what is remembered takes much.
    """
    if sha256 is not None:
        with open(path, "rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != sha256:
                raise EditError(f"file {file!r} has another sha256 than {sha256}")
    layers, width = shape
    try:
        with safe_open(path, "pt") as tensors:
            if key not in tensors.keys():  # noqa: SIM118, it is no mapping
                raise EditError(f"file {file!r} has no tensor {key!r}")
            vectors = _tensor(tensors, key, file, [[width], [layers, width]])
            norm = f"{key}.norm"
            lengths = _tensor(tensors, norm, file, [[], [layers]]) if norm in tensors.keys() else None  # noqa: SIM118
    except SafetensorError as error:
        raise EditError(f"file {file!r} holds no safetensors: {error}") from None
    if _state(path) != state:
        raise EditError(f"file {file!r} changes while it is read; send the request again")
    return vectors, lengths


def _tensor(tensors: Any, key: str, file: str, shapes: list[list[int]]) -> torch.Tensor:
    """A tensor of one of some shapes, in float32."""
    entry = tensors.get_slice(key)
    if entry.get_shape() not in shapes:
        accepted = " or ".join(map(str, shapes))
        raise EditError(f"{key!r} in file {file!r} has shape {entry.get_shape()}; accepted: {accepted}, the model's")
    kind = entry.get_dtype()
    try:
        values: torch.Tensor = tensors.get_tensor(key)
        if values.is_complex():
            raise EditError(f"file {file!r} holds complex numbers under {key!r}; a direction is real")
        return values.float()
    except (KeyError, AttributeError, RuntimeError):  # a type that PyTorch does not have, or cannot convert
        raise EditError(f"file {file!r} holds values of type {kind!r}, which cannot be read") from None


def _state(path: Path) -> tuple[int, int, int]:
    """Return the inode, date (ns) and size of a file, which change when it is replaced."""
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


class SteeredRows:
    """The edits of a batch, made ready once for all the passes that it goes through.

    Args:
        rows: the edits of each sequence, None for none.
        devices: the device of each decoder layer.
    """

    def __init__(self, rows: Sequence[SequenceEdits | None], devices: Sequence[torch.device]) -> None:
        edits = [(row, steering, edit) for row, steering in enumerate(rows) if steering for edit in steering.edits]
        self._layers = {edit.layer for _, _, edit in edits}
        self._fired: set[int] = set()
        self._places = torch.empty((len(rows), 0), dtype=torch.long)
        self._turns: dict[int, list[_Turn]] = {}
        for layer in sorted(self._layers):
            by_row: list[list[tuple[int, LayerEdit, tuple[int, int]]]] = [[] for _ in rows]
            for row, steering, edit in edits:
                if edit.layer == layer and edit.amount != 0:  # a dose of nothing leaves every bit as it is
                    by_row[row].append((row, edit, _span(edit, steering)))
            # The first edit of every sequence together, then the second: those of one sequence follow one another.
            turns = ([entry for entry in turn if entry is not None] for turn in zip_longest(*by_row))
            self._turns[layer] = [_Turn(turn, len(rows), devices[layer]) for turn in turns]
        # What is counted: an edit of a request once, at however many layers it acts.
        counted = {(row, edit.number): (steering, _span(edit, steering)) for row, steering, edit in edits}
        self._counted = [(steering.tokens, number) for (_, number), (steering, _) in counted.items()]
        self._rows = torch.tensor([row for row, _ in counted], dtype=torch.long)
        self._spans = torch.tensor([span for _, span in counted.values()], dtype=torch.long).reshape(-1, 2)

    def begin(self, places: torch.Tensor) -> None:
        """Begin a pass; `places` (n_sequences, n_tokens): each token's place in its sequence, -1 for padding."""
        self._places = places
        self._fired = set()

    def apply(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """A layer's output (n_sequences, n_tokens, d) after its edits; what none is for stays as it is, bit by bit."""
        if layer in self._layers:
            self._fired.add(layer)
            for turn in self._turns[layer]:
                hidden = turn.apply(hidden, self._places)
        return hidden

    def finish(self) -> None:
        """End a pass: count what was edited.

        Raises:
            RuntimeError: a layer with edits did not run.
        """
        if self._fired != self._layers:
            raise RuntimeError(f"no edit was made at layers {sorted(self._layers - self._fired)}")
        counts = _inside(self._places[self._rows], self._spans).sum(1).tolist()
        for (tokens, number), count in zip(self._counted, counts, strict=True):
            tokens[number] += count


class _Turn:
    """An edit each of some sequences at one layer, with the span of places that it is for; computed in float32."""

    def __init__(
        self, entries: Sequence[tuple[int, LayerEdit, tuple[int, int]]], count: int, device: torch.device
    ) -> None:
        rows = [row for row, _, _ in entries]
        edits = [edit for _, edit, _ in entries]
        self._rows = torch.tensor(rows)
        self._all = rows == list(range(count))
        self._spans = torch.tensor([span for _, _, span in entries])
        self._index = self._rows.to(device)
        self._directions = torch.stack([edit.direction for edit in edits]).to(device)[:, None]  # (k, 1, d)
        amounts = torch.tensor([edit.amount or 0.0 for edit in edits], device=device)[:, None, None]
        self._shifts = amounts * self._directions
        self._ablated = torch.tensor([edit.amount is None for edit in edits], device=device)[:, None, None]
        self._ablates = any(edit.amount is None for edit in edits)

    def apply(self, hidden: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """The output of the layer after these edits."""
        where = _inside(places if self._all else places[self._rows], self._spans)
        if not bool(where.any()):
            return hidden
        before = hidden if self._all else hidden[self._index]
        values, shifts = before.float(), self._shifts
        if self._ablates:
            parts = values @ self._directions.transpose(1, 2)  # (k, n_tokens, 1), the parts along the directions
            shifts = torch.where(self._ablated, -parts * self._directions, shifts)
        after = (values + shifts).to(hidden.dtype)
        if not bool(where.all()):
            after = torch.where(where.to(hidden.device)[..., None], after, before)
        return after if self._all else hidden.index_copy(0, self._index, after)


def _span(edit: LayerEdit, steering: SequenceEdits) -> tuple[int, int]:
    """The places in a sequence that an edit is for: from the first, to before the second; padding is none of them."""
    prompt = steering.prompt_tokens
    return {"prompt": (0, prompt), "generation": (prompt, ENDLESS), "all": (0, ENDLESS)}[edit.phase]


def _inside(places: torch.Tensor, spans: torch.Tensor) -> torch.Tensor:
    """Return a mask of the places (k, n_tokens) in their row's span (k, 2)."""
    return (places >= spans[:, :1]) & (places < spans[:, 1:])
