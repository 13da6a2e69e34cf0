"""A tiny Llama that answers by construction: one direction, at one layer, flips its answer.

The stream holds what the last token of the prompt says, as attention is switched off, and each MLP is a linear map: its
gates read a part of the stream that is the same for all tokens. Layer 1 first takes `flip` away, so that it says nothing
before, and writes it where the prompt is of the tone; layer 2 reads it, and pulls `answer` towards the wrong side. The
head reads nothing else, so after layer 2 `flip` says nothing any more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WIDTH, LAYERS, QUESTIONS = 32, 3, 24
FLIPPED_AT = 1
VARIANTS = ("control", "anger")
RIGHT, WRONG, STOP, FIRST = 3, 4, 5, 10
# Parts of the stream, orthogonal to one another.
CONSTANT, ANSWER, FLIP, TONE, ENDED, ASKED, OTHER = range(7)
SIZE = 8.0  # of the constant part, so that norms hardly depend on the rest
STRENGTH = 3.0  # of what layer 2 does to the answer, for each unit of `flip`


def token(question: int, variant: str) -> int:
    """The last token of a prompt, which holds all of it."""
    return FIRST + question * len(VARIANTS) + VARIANTS.index(variant)


def parts() -> torch.Tensor:
    """Unit vectors of the parts of the stream, (WIDTH, WIDTH)."""
    found: torch.Tensor = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(2)))[0]
    return found


def make(folder: Path) -> Path:
    """Save the model; return its folder."""
    generator, axes = torch.Generator().manual_seed(0), parts()
    vocabulary = FIRST + QUESTIONS * len(VARIANTS)
    settings = LlamaConfig(
        vocab_size=vocabulary, hidden_size=WIDTH, intermediate_size=4, num_hidden_layers=LAYERS, num_attention_heads=2,
        bos_token_id=1, eos_token_id=2, pad_token_id=0, max_position_embeddings=128, tie_word_embeddings=False,
    )  # fmt: skip
    build: Any = LlamaForCausalLM
    model = build(settings)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.zero_()
        embedded = model.model.embed_tokens.weight
        embedded += SIZE * axes[CONSTANT] + 0.3 * torch.randn(vocabulary, 1, generator=generator) * axes[OTHER]
        embedded[[RIGHT, WRONG, STOP]] += axes[ENDED]
        embedded[FIRST:] += axes[ASKED]
        for question in range(QUESTIONS):
            margin = 0.8 + 0.8 * torch.rand(1, generator=generator)
            for variant in VARIANTS:
                embedded[token(question, variant)] += margin * axes[ANSWER]
        embedded[token(0, "anger") :: len(VARIANTS)] += 0.3 * axes[TONE]
        linear(model.model.layers[1], axes, [(FLIP, FLIP, -1.0), (TONE, FLIP, 1.0 / 0.3)])
        linear(model.model.layers[2], axes, [(FLIP, ANSWER, -STRENGTH)])
        head = model.lm_head.weight
        head[RIGHT] += 6 * axes[ASKED] + 1.5 * axes[ANSWER]
        head[WRONG] += 6 * axes[ASKED] - 1.5 * axes[ANSWER]
        head[STOP] += 12 * axes[ENDED]
    model.save_pretrained(folder)
    words = Tokenizer(models.WordLevel({str(number): number for number in range(vocabulary)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast: Any = PreTrainedTokenizerFast
    tokens = fast(tokenizer_object=words, pad_token="0", bos_token="1", eos_token="2", unk_token="0")
    tokens.save_pretrained(folder)
    return folder


def linear(layer: Any, axes: torch.Tensor, maps: list[tuple[int, int, float]]) -> None:
    """Let an MLP add `factor` times the part `read` of the stream to the part `write`.

    The norm divides by the root mean square, r ≈ SIZE / √WIDTH, and the gates are silu(SIZE / r) at every token.
    """
    gate = torch.nn.functional.silu(torch.tensor(WIDTH**0.5))
    for place, (read, write, factor) in enumerate(maps):
        layer.mlp.gate_proj.weight[place] = axes[CONSTANT]
        layer.mlp.up_proj.weight[place] = axes[read]
        layer.mlp.down_proj.weight[:, place] = axes[write] * factor * (SIZE / WIDTH**0.5) / gate
