"""A cache of keys and values for a batch whose sequences come and go.

The cache of `transformers` is copied whole whenever a token is added, and whenever a sequence leaves. Here a layer
keeps room for tokens to come, a sequence that leaves makes room for the last one, and two batches can become one.
Layers with a window, or of another kind, stay as they are; batches with such layers are not joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, DynamicLayer

ROOM = 64  # tokens for which room is made at once


class RoomyLayer(DynamicLayer):  # type: ignore[no-untyped-call]
    """A layer that sees every token.

    `keys` and `values` (n_sequences, n_heads, n_tokens, d) are views of what it holds.
    """

    keys: torch.Tensor
    values: torch.Tensor
    _held: list[torch.Tensor] | None = None

    @property
    def places(self) -> int:
        """How many sequences there is memory for."""
        return 0 if self._held is None else len(self._held[0])

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Add tokens; return those of all, as the attention reads them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if self._held is None or end > self._held[0].shape[-2]:
            old = (self.keys, self.values) if begin else (key_states[:, :, :0], value_states[:, :, :0])
            self._held = _copied(old, len(key_states), end + ROOM)
        for held, new in zip(self._held, (key_states, value_states), strict=True):
            held[: len(new), :, begin:end] = new
        self._show(len(key_states), end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some sequences: each stays in its place, or comes from behind the last place that is kept."""
        if self._held is None:
            return
        count, length = len(indices), self.get_seq_length()
        for place, source in enumerate(indices.tolist()):
            if place != source:
                assert source >= count
                for held in self._held:
                    held[place, :, :length] = held[source, :, :length]
        if 2 * count <= len(self._held[0]):  # give the memory back
            self._held = _copied([held[:count, :, :length] for held in self._held], count, length + ROOM)
        self._show(count, length)

    def join(self, other: RoomyLayer, trimmed: int, others_trimmed: int) -> None:
        """Take in the sequences of another, behind these.

        The first `trimmed` tokens, and of the other `others_trimmed`, are of no sequence. What is left is padded on the
        left to one length.
        """
        length = max(self.get_seq_length() - trimmed, other.get_seq_length() - others_trimmed)
        count = len(self.keys) + len(other.keys)
        joined = []
        for own, others in ((self.keys, other.keys), (self.values, other.values)):
            # Padding is masked, but what is not a number would show through the mask.
            both = own.new_zeros((count, own.shape[1], length + ROOM, own.shape[3]))
            both[: len(own), :, length - own.shape[2] + trimmed : length] = own[:, :, trimmed:]
            both[len(own) :, :, length - others.shape[2] + others_trimmed : length] = others[:, :, others_trimmed:]
            joined.append(both)
        self._held = joined
        self._show(count, length)

    def _show(self, count: int, length: int) -> None:
        assert self._held is not None
        self.keys, self.values = (held[:count, :, :length] for held in self._held)


def _copied(tensors: Sequence[torch.Tensor], count: int, room: int) -> list[torch.Tensor]:
    """Copies of tensors (n_sequences, n_heads, n_tokens, d), with room for `count` sequences of `room` tokens."""
    copies = []
    for tensor in tensors:
        copy = tensor.new_empty((count, tensor.shape[1], room, tensor.shape[3]))
        copy[: len(tensor), :, : tensor.shape[2]] = tensor
        copies.append(copy)
    return copies


def batch_cache(config: Any) -> DynamicCache:
    """An empty cache for a model of this configuration."""
    cache = DynamicCache(config=config)
    cache.layers = [
        RoomyLayer() if type(layer) is DynamicLayer else layer  # type: ignore[no-untyped-call]
        for layer in cache.layers
    ]
    return cache


def places(cache: DynamicCache) -> int:
    """How many sequences a cache has memory for."""
    return max((layer.places for layer in cache.layers if isinstance(layer, RoomyLayer)), default=0)


def joinable(cache: DynamicCache) -> bool:
    """Whether a cache can become one with another."""
    return bool(cache.layers) and all(isinstance(layer, RoomyLayer) for layer in cache.layers)


def join_caches(cache: DynamicCache, other: DynamicCache, trimmed: int, others_trimmed: int) -> None:
    """Take the sequences of another cache into one; see `RoomyLayer.join`."""
    for own, others in zip(cache.layers, other.layers, strict=True):
        assert isinstance(own, RoomyLayer)
        assert isinstance(others, RoomyLayer)
        own.join(others, trimmed, others_trimmed)
