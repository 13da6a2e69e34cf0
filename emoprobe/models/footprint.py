"""Memory that a model takes on a GPU: weights and KV cache, by its configuration and the headers of its files."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoprobe.models.settings import context_length, quantisation, read_settings
from emoprobe.models.weights import WeightsError, tensors

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Bytes of one value of each safetensors type; what is not here counts as one byte.
STORED_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2}
_FLOATS = {"F64", "F32", "F16", "BF16"}
# Bits of one weight by method of quantisation, its scales included, where no file shows them.
_BITS = {"awq": 4.5, "gptq": 4.5, "mxfp4": 4.25, "fp8": 8.1, "mxfp8": 8.25, "nvfp4": 4.5}


@dataclass(frozen=True)
class Footprint:
    """Memory that a model needs.

    Attributes:
        weights: bytes of the weights as vLLM holds them, quantised ones as stored.
        loaded: bytes of the weights as the capture server may hold them: quantised ones de-quantised, which is what
            transformers does where kernels for them are missing.
        cache: bytes of the KV cache for one token, every layer counted in full.
        heads: attention heads.
        cache_heads: key and value heads.
        layers: decoder layers.
        width: of the residual stream.
        inner: width inside the largest feed-forward block.
        vocabulary: tokens that the model knows.
        context: the longest text in tokens; None where the configuration does not say.
    """

    weights: int
    loaded: int
    cache: int
    heads: int
    cache_heads: int
    layers: int
    width: int
    inner: int
    vocabulary: int
    context: int | None

    @classmethod
    def of(cls, directory: Path, dtype: str) -> Footprint | None:
        """Compute the footprint of the model in a directory; None where its configuration does not tell enough.

        Weights are counted by the headers of the safetensors files, or, without files, on the meta device, which
        imports PyTorch and transformers.

        Args:
            directory: with `config.json`, and with the weights where they are there.
            dtype: that the model is computed in: `float32`, `bfloat16` or `float16`.
        """
        settings = read_settings(directory)
        text = settings.get("text_config")
        text = text if isinstance(text, dict) else settings
        layers, width = _integer(text, "num_hidden_layers", "n_layer"), _integer(text, "hidden_size", "n_embd")
        heads = _integer(text, "num_attention_heads", "n_head")
        if layers is None or width is None or heads is None:
            return None
        cache_heads = _integer(text, "num_key_value_heads") or heads
        head_width = _integer(text, "head_dim") or width // heads
        inner = _integer(text, "intermediate_size", "n_inner") or 4 * width
        experts = _integer(text, "num_experts_per_tok") or 1
        section = quantisation(settings)
        counted = _counted(directory, BYTES[dtype], quantised=section is not None)
        if section is None and counted is not None:
            weights = loaded = counted
        else:
            parameters = count_parameters(directory)
            if parameters is None:
                return None
            loaded = parameters * BYTES[dtype]
            bits = _BITS.get(str((section or {}).get("quant_method")), 8 * BYTES[dtype])
            weights = counted if counted is not None else _quantised(parameters, bits, text, width, dtype)
        return cls(
            weights=weights,
            loaded=loaded,
            cache=2 * layers * cache_heads * head_width * BYTES[dtype],
            heads=heads,
            cache_heads=cache_heads,
            layers=layers,
            width=width,
            inner=inner * experts,
            vocabulary=_integer(text, "vocab_size") or 0,
            context=context_length(settings),
        )

    def divides(self, width: int) -> bool:
        """Return whether vLLM can divide the attention heads over so many GPUs."""
        whole = self.cache_heads % width == 0 or width % self.cache_heads == 0
        return self.heads % width == 0 and whole


def count_parameters(directory: Path) -> int | None:
    """Count a model's parameters on the meta device; None where transformers cannot build it."""
    try:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        config = AutoConfig.from_pretrained(directory)
        with torch.device("meta"):
            model: torch.nn.Module = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    except Exception:  # transformers raises whatever a configuration runs into
        return None
    return sum(parameter.numel() for parameter in model.parameters())


def _counted(directory: Path, width: int, *, quantised: bool) -> int | None:
    """Bytes of the weights by the headers of their files; None where there is none, or one is damaged.

    Floating-point weights that are not quantised are converted, to `width` bytes a value.
    """
    total = 0
    try:
        for path in directory.glob("*.safetensors"):
            for kind, shape in tensors(path).values():
                converted = kind in _FLOATS and not quantised
                total += math.prod(shape) * (width if converted else STORED_BYTES.get(kind, 1))
    except (OSError, WeightsError):
        return None
    return total or None


def _quantised(parameters: int, bits: float, text: dict[str, Any], width: int, dtype: str) -> int:
    """Bytes of quantised weights that no file shows; the embeddings stay as they are."""
    tables = 1 if text.get("tie_word_embeddings") else 2
    kept = min(parameters, tables * width * (_integer(text, "vocab_size") or 0))
    return round((parameters - kept) * bits / 8) + kept * BYTES[dtype]


def _integer(values: dict[str, Any], *keys: str) -> int | None:
    return next((values[key] for key in keys if isinstance(values.get(key), int)), None)
