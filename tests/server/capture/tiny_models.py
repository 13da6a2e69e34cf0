"""Tiny random models of several architectures, as directories that any program can load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.emoprobe.models.families import config

ARCHITECTURES = ("llama", "qwen3", "gpt2")
# Where each architecture keeps what is called the same in the first two.
NORMS = {
    "llama": ("input_layernorm", "post_attention_layernorm", "self_attn"),
    "qwen3": ("input_layernorm", "post_attention_layernorm", "self_attn"),
    "gpt2": ("ln_1", "ln_2", "attn"),
}


def make(architecture: str, tokenizer: Path, folder: Path) -> Path:
    """Save a random model of three layers with the tokenizer of another model; return its folder."""
    torch.manual_seed(0)
    tokens = AutoTokenizer.from_pretrained(tokenizer)
    size: dict[str, Any] = {"vocab_size": len(tokens), "bos_token_id": 1, "eos_token_id": 2}
    wide: dict[str, Any] = {
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
    }
    model: PreTrainedModel
    if architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**size, **wide, num_key_value_heads=2))
    elif architecture == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**size, **wide, num_key_value_heads=2, head_dim=16))
    elif architecture == "gpt_neox":
        model = GPTNeoXForCausalLM(GPTNeoXConfig(**size, **wide))
    else:
        model = GPT2LMHeadModel(GPT2Config(**size, n_embd=48, n_layer=3, n_head=4, n_positions=2048))
    # Larger weights than the default's give every token a different next one.
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.15)
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    return folder


def make_of_family(family: str, folder: Path) -> Path:
    """Save a random model of one of many families, with a tokenizer of its own whose words are numbers."""
    torch.manual_seed(0)
    settings = config(family)
    model: Any = AutoModelForCausalLM.from_config(settings)
    with torch.no_grad():
        for parameter in model.parameters():
            _ = parameter.normal_(0, 0.3) if parameter.dim() > 1 else parameter.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({str(number): number for number in range(settings.vocab_size)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokens = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="0", bos_token="1", eos_token="2", unk_token="0")
    tokens.save_pretrained(folder)
    return folder
