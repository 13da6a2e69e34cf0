"""What a model asks of settings and of packages, by its config.json alone: nothing here is loaded or imported."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

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


def _installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of the package that it is a part of
        return False
