"""Edits of the residual stream while a model runs: one row a sequence, so that sequences with different edits, and
with none, share a batch.

An edit acts on `resid_post`, a decoder layer's output h, at the tokens of the prompt, of the completion, or of both.
With the unit vector v of a direction and m, the length it is measured in, `add` makes h + dose * m * v, and `ablate`
makes h - (h·v) v.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from emoprobe.models.architecture import Architecture
from server.capture.schema import Edit

MAX_FILE = 256 << 20


class SteeringError(ValueError):
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
class Steering:
    """The edits of one sequence, whose first `prompt_tokens` tokens are its prompt.

    `tokens` counts, for each edit of the request, the tokens that it was applied to.
    """

    edits: tuple[LayerEdit, ...]
    prompt_tokens: int
    tokens: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.tokens = {edit.number: 0 for edit in self.edits}


def layer_edits(edits: Sequence[Edit], root: Path, architecture: Architecture) -> tuple[LayerEdit, ...]:
    """The edits of a request, layer by layer, in the order in which they were asked for.

    Raises:
        SteeringError: a file lies outside of the root, is missing, or another than it should be; or a direction has
            another width than the model.
        HookPointError: the model has no such layer.
    """
    found = []
    for number, edit in enumerate(edits):
        layers = architecture.layers(edit.layers)
        vectors, lengths = _direction(edit, root)
        for layer in layers:
            vector = _of_layer(vectors, layer, architecture.n_layers, 1, "direction")
            if vector.shape != (architecture.d_model,):
                raise SteeringError(
                    f"the direction has {vector.shape[-1]} values, the model's stream {architecture.d_model}"
                )
            size = float(vector.norm())
            if not 0 < size < float("inf"):
                raise SteeringError("the direction is zero, or not finite")
            length = size if lengths is None else float(_of_layer(lengths, layer, architecture.n_layers, 0, "length"))
            amount = edit.dose * length if edit.operation == "add" else None
            if not 0 < length < float("inf") or abs(amount or 0.0) > torch.finfo(torch.float32).max:
                raise SteeringError(f"the length of the direction, {length:g}, or the dose times it is out of range")
            found.append(LayerEdit(number, layer, vector / size, amount, edit.phase))
    return tuple(found)


def _direction(edit: Edit, root: Path) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The direction of an edit, and the length that it is measured in; None: its own."""
    if edit.values is not None:
        return torch.tensor(edit.values, dtype=torch.float32), None
    assert edit.file is not None
    path = (root / edit.file).resolve()
    if not path.is_relative_to(root) or not path.is_file() or path.stat().st_size > MAX_FILE:
        raise SteeringError(f"file {edit.file!r} is no file of at most {MAX_FILE >> 20} MiB below the server's root")
    content = path.read_bytes()
    if edit.sha256 is not None and hashlib.sha256(content).hexdigest() != edit.sha256:
        raise SteeringError(f"file {edit.file!r} has another sha256 than {edit.sha256}")
    try:
        tensors = load(content)
    except SafetensorError as error:
        raise SteeringError(f"file {edit.file!r} holds no safetensors: {error}") from None
    if edit.key not in tensors:
        raise SteeringError(f"file {edit.file!r} has no tensor {edit.key!r}")
    length = tensors.get(f"{edit.key}.norm")
    return tensors[edit.key].float(), None if length is None else length.float()


def _of_layer(values: torch.Tensor, layer: int, layers: int, dimensions: int, name: str) -> torch.Tensor:
    """A layer's part of a tensor that is the same for all layers, or has a row for each."""
    if values.dim() == dimensions:
        return values
    if values.dim() == dimensions + 1 and values.shape[0] == layers:
        return values[layer]
    raise SteeringError(
        f"the {name} has shape {list(values.shape)}; accepted: one for all of {layers} layers, or one each"
    )


class SteeredRows:
    """The edits of a batch at the tokens of one pass.

    Args:
        rows: the edits of each sequence, None for none.
        positions: (n_sequences, n_tokens), each token's place in its sequence, -1 for padding.
    """

    def __init__(self, rows: Sequence[Steering | None], positions: torch.Tensor) -> None:
        self._rows, self._positions = rows, positions
        self._fired: set[int] = set()
        self._layers = {edit.layer for row in rows if row is not None for edit in row.edits}

    def apply(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        """A layer's output (n_sequences, n_tokens, d) after its edits; what none is for stays as it is, bit by bit."""
        if layer not in self._layers:
            return hidden
        self._fired.add(layer)
        own = [[edit for edit in row.edits if edit.layer == layer] if row else [] for row in self._rows]
        # The first edit of every sequence together, then the second: those of one sequence follow one another.
        for turn in zip_longest(*own):
            chosen = {number: edit for number, edit in enumerate(turn) if edit is not None}
            hidden = self._turn(chosen, hidden)
        return hidden

    def _turn(self, edits: dict[int, LayerEdit], hidden: torch.Tensor) -> torch.Tensor:
        """One edit for each of some sequences, computed in float32."""
        device, rows = hidden.device, list(edits)
        where = torch.stack([self._where(row, edit) & (edit.amount != 0) for row, edit in edits.items()]).to(device)
        directions = torch.stack([edit.direction for edit in edits.values()]).to(device)[:, None]
        amounts = torch.tensor([edit.amount or 0.0 for edit in edits.values()], device=device)[:, None]
        ablated = torch.tensor([edit.amount is None for edit in edits.values()], device=device)[:, None]
        before = hidden[rows]
        values = before.float()
        factors = torch.where(ablated, -(values * directions).sum(-1), amounts)
        after = (values + factors[..., None] * directions).to(hidden.dtype)
        return hidden.index_copy(0, torch.tensor(rows, device=device), torch.where(where[..., None], after, before))

    def finish(self) -> None:
        """Count what was edited.

        Raises:
            RuntimeError: a layer with edits did not run.
        """
        if self._fired != self._layers:
            raise RuntimeError(f"no edit was made at layers {sorted(self._layers - self._fired)}")
        for number, row in enumerate(self._rows):
            if row is not None:
                for edit in {edit.number: edit for edit in row.edits}.values():
                    row.tokens[edit.number] += int(self._where(number, edit).sum())

    def _where(self, number: int, edit: LayerEdit) -> torch.Tensor:
        """The tokens of a sequence that an edit is for; padding is none of them."""
        row, places = self._rows[number], self._positions[number]
        assert row is not None
        if edit.phase == "prompt":
            return (places >= 0) & (places < row.prompt_tokens)
        return places >= (row.prompt_tokens if edit.phase == "generation" else 0)
