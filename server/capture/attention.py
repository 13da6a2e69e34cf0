"""Attention of a batch whose sequences come and go: shared heads on a CPU, and the cache of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "sdpa_shared_heads"


def share_heads(causal: Any) -> None:
    """Let a model's attention read shared keys and values where they lie.

    With a mask, `transformers` copies them for every query head, as GPUs want it; on a CPU that takes most of the time
    of a decoding step. The numbers are the same, bit by bit. Models that attend in a way of their own are left alone.
    """
    config = causal.config.get_text_config()
    shared = (getattr(config, "num_key_value_heads", None) or 0) < config.num_attention_heads
    if causal.device.type != "cpu" or not shared or config._attn_implementation != "sdpa":
        return
    if not causal._supports_attention_backend:
        return
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    causal.set_attn_implementation(NAME)


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    position_bias: torch.Tensor | None = None,
    **rest: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of queries (n_sequences, n_heads, n_tokens, d); the result has heads and tokens the other way round."""
    if attention_mask is None or position_bias is not None or query.shape[1] == key.shape[1]:
        attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module,
            query,
            key,
            value,
            attention_mask,
            dropout=dropout,
            scaling=scaling,
            position_bias=position_bias,
            **rest,
        )
        return attended
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling, enable_gqa=True
    )
    return output.transpose(1, 2).contiguous(), None


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
        """Number of sequences with memory."""
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
        for kept, added in ((self.keys, other.keys), (self.values, other.values)):
            # Padding is masked, but what is not a number would show through the mask.
            both = kept.new_zeros((count, kept.shape[1], length + ROOM, kept.shape[3]))
            both[: len(kept), :, length - kept.shape[2] + trimmed : length] = kept[:, :, trimmed:]
            both[len(kept) :, :, length - added.shape[2] + others_trimmed : length] = added[:, :, others_trimmed:]
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
    """Return the number of sequences that a cache has memory for."""
    return max((layer.places for layer in cache.layers if isinstance(layer, RoomyLayer)), default=0)


def joinable(cache: DynamicCache) -> bool:
    """Return whether a cache can become one with another."""
    return bool(cache.layers) and all(isinstance(layer, RoomyLayer) for layer in cache.layers)


def join_caches(cache: DynamicCache, other: DynamicCache, trimmed: int, others_trimmed: int) -> None:
    """Take the sequences of another cache into one; see `RoomyLayer.join`."""
    for kept, added in zip(cache.layers, other.layers, strict=True):
        assert isinstance(kept, RoomyLayer)
        assert isinstance(added, RoomyLayer)
        kept.join(added, trimmed, others_trimmed)
