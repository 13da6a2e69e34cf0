"""How deep and how wide a model is, as far as that can be told before anything is loaded or downloaded."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from emoprobe.config.science.model import Model
from emoprobe.config.section import is_local
from emoprobe.models.source import EMBEDDED

# Before its first conversion there is no file to read these from.
EMBEDDED_LAYERS, EMBEDDED_WIDTH = 30, 576
_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model")


def layer_count(directory: Path) -> int | None:
    """Layers of a model by its config.json; None where it does not say."""
    return _first(_settings(directory), _LAYERS)


def stream_width(directory: Path) -> int | None:
    """Width of a model's residual stream by its config.json; None where it does not say."""
    return _first(_settings(directory), _WIDTH)


def known_size(model: Model) -> tuple[int | None, int | None]:
    """Layers and width of a configured model, each None where it is not known on this machine yet."""
    if model.source == EMBEDDED:
        return EMBEDDED_LAYERS, EMBEDDED_WIDTH
    directory = Path(model.source).expanduser() if is_local(model.source) else downloaded(model)
    return (None, None) if directory is None else (layer_count(directory), stream_width(directory))


def downloaded(model: Model) -> Path | None:
    """Return where the configuration of a model from the hub lies, if it has been downloaded."""
    try:
        from huggingface_hub import try_to_load_from_cache

        path = try_to_load_from_cache(model.source, "config.json", revision=model.revision)
    except (ImportError, ValueError):
        return None
    return Path(path).parent if isinstance(path, str) else None


def read_settings(directory: Path) -> dict[str, Any]:
    """The content of a model's config.json; empty where it cannot be read."""
    try:
        values = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _settings(directory: Path) -> dict[str, Any]:
    values = read_settings(directory)
    text = values.get("text_config", values)
    return text if isinstance(text, dict) else values


def _first(values: dict[str, Any], keys: tuple[str, ...]) -> int | None:
    return next((values[key] for key in keys if isinstance(values.get(key), int)), None)


# Keys for the longest text that a model takes, as vLLM reads them.
_LENGTHS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
# Kinds of rotary scaling whose longest text is written out already.
_SCALED = {"default", "su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling"}

# Method of quantisation → packages that transformers loads it with. `gpu`: on no CPU; `none`: in no case.
PACKAGES: dict[str, tuple[str, ...]] = {
    "aqlm": ("aqlm",),
    "auto-round": ("auto_round",),
    "awq": ("gptqmodel",),
    "bitnet": (),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
    "eetq": ("gpu", "kernels"),
    "fbgemm_fp8": ("gpu", "fbgemm_gpu"),
    "fouroversix": ("fouroversix",),
    "fp8": (),
    "fp_quant": ("gpu", "qutlass", "fp_quant"),
    "gptq": ("optimum", "gptqmodel"),
    "higgs": ("gpu", "flute", "fast_hadamard_transform"),
    "hqq": ("hqq",),
    "metal": (),
    "mxfp4": (),
    "mxfp8": (),
    "nvfp4": ("none",),
    "quanto": ("optimum.quanto",),
    "quark": ("quark",),
    "sinq": ("sinq",),
    "spqr": ("gpu", "spqr_quant"),
    "torchao": ("torchao",),
    "vptq": ("gpu", "vptq"),
}
# Names under which packages are installed, where these are others.
PIP = {
    "compressed_tensors": "compressed-tensors",
    "auto_round": "auto-round",
    "optimum.quanto": "optimum-quanto",
    "quark": "amd-quark",
    "fbgemm_gpu": "fbgemm-gpu",
    "flute": "flute-kernel",
    "fast_hadamard_transform": "fast-hadamard-transform",
    "spqr_quant": "spqr_quant[gpu]",
}
# Further packages on a GPU, where a CPU computes with de-quantised weights.
ON_GPU: dict[str, tuple[str, ...]] = {"fp8": ("kernels",), "mxfp8": ("kernels",)}


_HALF, _ANY = ("bfloat16", "float16"), ("bfloat16", "float16", "float32")
# Method of quantisation → types that vLLM 0.32 computes with it in. What is not here it reads no checkpoints of.
VLLM_DTYPES: dict[str, tuple[str, ...]] = {
    "auto-round": _HALF,
    "awq": _HALF,
    "compressed-tensors": _ANY,
    "experts_int8": _HALF,
    "fp8": _HALF,
    "gptq": _HALF,
    "inc": _HALF,
    "modelopt": _HALF,
    "mxfp4": ("bfloat16",),
    "mxfp8": ("bfloat16",),
    "quark": _HALF,
    "torchao": _ANY,
}
_AMX = "amx_tile"  # a flag of /proc/cpuinfo: Intel's matrix extensions


def context_length(settings: dict[str, Any]) -> int | None:
    """Return the longest text that a model takes, in tokens, as vLLM derives it; None where config.json does not say.

    Args:
        settings: the content of config.json.
    """
    text = settings.get("text_config")
    text = text if isinstance(text, dict) else settings
    lengths = [text[key] for key in _LENGTHS if isinstance(text.get(key), int)]
    if not lengths:
        return None
    length: float = text["model_max_length"] if isinstance(text.get("model_max_length"), int) else min(lengths)
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if isinstance(scaling, dict) and "gemma3" not in str(settings.get("model_type")):
        kind, factor = scaling.get("rope_type", scaling.get("type", "default")), scaling.get("factor")
        if kind not in _SCALED and isinstance(factor, int | float):
            length *= factor
    return int(length)


def quantisation(settings: dict[str, Any]) -> dict[str, Any] | None:
    """Return what config.json says of how the weights are quantised (`quant_method` …); None where they are not."""
    for holder in (settings, settings.get("text_config")):
        section = holder.get("quantization_config") if isinstance(holder, dict) else None
        if isinstance(section, dict) and section.get("quant_method"):
            return section
    return None


def why_not_loaded(method: str, gpu: bool) -> str | None:
    """Return why transformers cannot load weights that are quantised by a method; None where it can."""
    if method not in PACKAGES:
        return f"transformers knows no quantisation {method!r}"
    needed = [*PACKAGES[method], *(ON_GPU.get(method, ()) if gpu else ())]
    if needed == ["none"]:
        return f"transformers loads no weights that are quantised with {method}"
    if "gpu" in needed and not gpu:
        return f"weights that are quantised with {method} need a GPU"
    missing = [name for name in needed if name != "gpu" and not _installed(name)]
    names = " ".join(PIP.get(name, name) for name in missing)
    return f"weights that are quantised with {method} need pip install {names}" if missing else None


def why_not_generated(section: dict[str, Any], dtype: str, gpu: bool, cpu_flags: str) -> str | None:
    """Return why vLLM cannot generate with quantised weights; None where nothing shows it.

    Args:
        section: `quantization_config` of config.json.
        dtype: of the computation.
        gpu: whether vLLM runs on one.
        cpu_flags: features of the processor, as /proc/cpuinfo lists them.
    """
    method = str(section.get("quant_method"))
    dtypes = VLLM_DTYPES.get(method)
    if dtypes is None:
        return f"vLLM reads no weights that are quantised with {method}; it reads {', '.join(VLLM_DTYPES)}"
    if dtype not in dtypes:
        return f"vLLM computes with {method} in {' or '.join(dtypes)}, not in {dtype}; set model.dtype"
    blocks = method == "fp8" and section.get("weight_block_size")
    if not gpu and method == "mxfp8":
        return f"vLLM has no kernels for {method} on a CPU"
    if not gpu and (method == "mxfp4" or blocks) and _AMX not in cpu_flags.split():
        return f"vLLM's kernels for {method}{' in blocks' if blocks else ''} on a CPU need one with AMX"
    return None


# Models with layers that vLLM has no batch-invariant kernels for, where `layer_types` may not say it.
_RECURRENT = frozenset(
    ("bamba", "falcon_h1", "falcon_mamba", "jamba", "kimi_linear", "lfm2", "mamba", "mamba2", "minimax", "nemotron_h",
     "plamo2", "qwen3_5", "qwen3_5_moe", "qwen3_next", "zamba2")
)  # fmt: skip


def why_not_batch_invariant(settings: dict[str, Any]) -> str | None:
    """Return why vLLM has no batch-invariant kernels for a model; None where nothing shows it.

    Args:
        settings: the content of config.json.
    """
    text = settings.get("text_config")
    text = text if isinstance(text, dict) else settings
    kinds = {str(kind) for kind in text.get("layer_types") or ()}
    other = sorted(kind for kind in kinds if kind == "linear_attention" or not kind.endswith("attention"))
    named = {str(holder.get("model_type")) for holder in (settings, text)} & _RECURRENT
    if other or named:
        what = f"layers of the kind {', '.join(other)}" if other else f"models of the kind {', '.join(sorted(named))}"
        return f"vLLM has no batch-invariant kernels for {what}"
    return None


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of the package that it is a part of
        return False
