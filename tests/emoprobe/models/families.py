"""Configurations of tiny models of many families."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig

LAYERS, WIDTH = 3, 48
SIZES: dict[str, Any] = {
    "vocab_size": 199,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
GROUPED: dict[str, Any] = {"num_key_value_heads": 2}
EXPERTS: dict[str, Any] = GROUPED | {"num_experts_per_tok": 2}
HEADS: dict[str, Any] = GROUPED | {"head_dim": 16}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GROUPED),
    "mistral": ("mistral", GROUPED),
    "mixtral": ("mixtral", EXPERTS | {"num_local_experts": 8}),
    "qwen2": ("qwen2", GROUPED),
    "qwen3": ("qwen3", HEADS),
    "qwen3_moe": ("qwen3_moe", HEADS | EXPERTS | {"num_experts": 8, "moe_intermediate_size": 32}),
    "qwen3_moe_first_layer_dense": (
        "qwen3_moe",
        HEADS | EXPERTS | {"num_experts": 8, "moe_intermediate_size": 32, "mlp_only_layers": [0]},
    ),
    "gemma": ("gemma", HEADS),
    "gemma2": ("gemma2", HEADS | {"sliding_window": 16}),
    "gemma3_text": ("gemma3_text", HEADS | {"sliding_window": 16}),
    "phi": ("phi", {}),
    "phi3": ("phi3", GROUPED),
    "gpt2": ("gpt2", {}),
    "gptj": ("gptj", {"rotary_dim": 8}),
    "gpt_neox_parallel": ("gpt_neox", {"use_parallel_residual": True}),
    "gpt_neox_sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "opt": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": WIDTH}),
    "opt_norm_after": ("opt", {"ffn_dim": 96, "word_embed_proj_dim": WIDTH, "do_layer_norm_before": False}),
    "falcon": ("falcon", {"parallel_attn": True, "new_decoder_architecture": False}),
    "falcon_new": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_sequential": (
        "falcon",
        {"parallel_attn": False, "new_decoder_architecture": False, "alibi": True, "multi_query": False},
    ),
    "bloom": ("bloom", {}),
    "bloom_residual_after_norm": ("bloom", {"apply_residual_connection_post_layernorm": True}),
    "olmo": ("olmo", GROUPED),
    "olmo2": ("olmo2", GROUPED),
    "olmo3": ("olmo3", GROUPED | {"sliding_window": 16}),
    "olmoe": ("olmoe", EXPERTS | {"num_experts": 8}),
    "gpt_oss": ("gpt_oss", HEADS | EXPERTS | {"num_local_experts": 8, "sliding_window": 16}),
    "smollm3": ("smollm3", GROUPED),
    "granite": ("granite", GROUPED | {"residual_multiplier": 0.22, "embedding_multiplier": 12.0}),
    "granitemoe": ("granitemoe", EXPERTS | {"num_local_experts": 8, "residual_multiplier": 0.22}),
    "cohere": ("cohere", GROUPED),
    "cohere2": ("cohere2", GROUPED | {"sliding_window": 16}),
    "stablelm": ("stablelm", GROUPED | {"partial_rotary_factor": 0.5}),
    "starcoder2": ("starcoder2", GROUPED),
    "glm4": ("glm4", HEADS),
    "nemotron": ("nemotron", GROUPED),
    "llama4_text": (
        "llama4_text",
        HEADS | EXPERTS | {"num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size_mlp": 96,
                           "attention_chunk_size": 64, "interleave_moe_layer_step": 2},
    ),
    "deepseek_v3": (
        "deepseek_v3",
        {
            "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 16, "v_head_dim": 16, "n_routed_experts": 8, "num_experts_per_tok": 2,
            "moe_intermediate_size": 32, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
        },
    ),
}  # fmt: skip


def config(family: str) -> PretrainedConfig:
    """The configuration of a tiny model."""
    kind, more = FAMILIES[family]
    return AutoConfig.for_model(kind, **SIZES | more)  # type: ignore[no-any-return]
