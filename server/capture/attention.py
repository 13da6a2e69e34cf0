"""Attention on a CPU where several query heads share the keys and values of one."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
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
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
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
        return found
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling, enable_gqa=True
    )
    return output.transpose(1, 2).contiguous(), None
