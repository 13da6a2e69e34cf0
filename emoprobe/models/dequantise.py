"""From a GGUF file of a Llama model with a byte-level BPE tokenizer to a plain Hugging Face directory in float32.

Transformers reads such a file as well, but takes five times the processor time, most of it for imports and for reading
the file three times. What is written here is byte for byte what it would save.
"""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, TokenType, dequantize
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

VERSION = "transformers_version"
FILES = (
    "config.json", "generation_config.json", "model.safetensors", "chat_template.jinja", "tokenizer.json",
    "tokenizer_config.json",
)  # fmt: skip
NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def dequantise(file: Path, directory: Path) -> None:
    """Write weights, configuration, tokenizer and chat template, the `FILES`, into a directory that is there.

    Raises:
        KeyError: the file holds another kind of model.
        OSError: it cannot be read, or the directory not written.
    """
    reader = GGUFReader(file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    heads = {"attn_q": fields["llama.attention.head_count"], "attn_k": fields["llama.attention.head_count_kv"]}
    weights = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        *layer, part, kind = tensor.name.split(".")  # blk.0.attn_q.weight, or output_norm.weight
        if part in heads:
            values = _halves(values, heads[part])
        name = f"model.layers.{layer[1]}.{LAYER_NAMES[part]}" if layer else NAMES[part]
        weights[f"{name}.{kind}"] = np.ascontiguousarray(values)
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    config = _config(fields)
    _write_json(directory / "config.json", config)
    generation = {name: config[name] for name in ("bos_token_id", "eos_token_id", VERSION)}
    _write_json(directory / "generation_config.json", generation)
    _write_tokenizer(fields, directory)


def _halves(values: np.ndarray, heads: int) -> np.ndarray:
    """The rows of each head as Transformers rotates them: GGUF interleaves the two halves."""
    rows, *rest = values.shape
    return values.reshape(heads, rows // heads // 2, 2, *rest).swapaxes(1, 2).reshape(values.shape)


def _config(fields: dict[str, Any]) -> dict[str, Any]:
    """The configuration of the model. Embeddings are tied: the file has no head of its own."""
    heads, width = fields["llama.attention.head_count"], fields["llama.embedding_length"]
    return {
        "_model_name_or_path": fields["general.name"],
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "dtype": "float32",
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "head_dim": width // heads,
        "hidden_act": "silu",
        "hidden_size": width,
        "initializer_range": 0.02,
        "intermediate_size": fields["llama.feed_forward_length"],
        "max_position_embeddings": fields["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": fields["llama.block_count"],
        "num_key_value_heads": fields["llama.attention.head_count_kv"],
        "pad_token_id": fields["tokenizer.ggml.padding_token_id"],
        "pretraining_tp": 1,
        "rms_norm_eps": fields["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_theta": fields["llama.rope.freq_base"], "rope_type": "default"},
        "tie_word_embeddings": True,
        VERSION: metadata.version("transformers"),
        "unk_token_id": fields["tokenizer.ggml.unknown_token_id"],
        "use_cache": True,
        "vocab_size": fields["llama.vocab_size"],
    }


def _write_tokenizer(fields: dict[str, Any], directory: Path) -> None:
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="", fuse_unk=False)
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1", special_tokens=[])
    ids = {name: fields[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "unknown", "padding")}
    types = fields["tokenizer.ggml.token_type"]
    special = [token for token, kind in zip(tokens, types, strict=True) if kind == TokenType.CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    tokenizer.save(str(directory / "tokenizer.json"), pretty=True)
    _write_json(
        directory / "tokenizer_config.json",
        {
            "backend": "tokenizers",
            "bos_token": tokens[ids["bos"]],
            "eos_token": tokens[ids["eos"]],
            "is_local": True,
            "local_files_only": False,
            "model_max_length": int(1e30),
            "pad_token": tokens[ids["padding"]],
            "tokenizer_class": "TokenizersBackend",
            "unk_token": tokens[ids["unknown"]],
        },
    )
    (directory / "chat_template.jinja").write_text(fields["tokenizer.chat_template"], encoding="utf-8")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
