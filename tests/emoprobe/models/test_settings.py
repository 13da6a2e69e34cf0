"""Settings of a model read from its config.json, compared with the libraries that load it."""

from __future__ import annotations

import ast
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AUTO_QUANTIZER_MAPPING

from emoprobe.config.science.model import Model
from emoprobe.models.settings import (
    PACKAGES,
    VLLM_DTYPES,
    context_length,
    known_size,
    layer_count,
    quantisation,
    stream_width,
    why_not_generated,
    why_not_loaded,
)

# Of GGUF files, of one application, and by names that no checkpoint has.
OTHERS = {"gguf", "gemma", "bitsandbytes_4bit", "bitsandbytes_8bit"}
# Packages that transformers misses only while it loads the weights.
LATER = {"fouroversix", "sinq"}


def test_every_method_of_transformers_is_known() -> None:
    assert set(AUTO_QUANTIZER_MAPPING) - OTHERS | {"bitsandbytes"} == set(PACKAGES)


@pytest.mark.skipif(torch.cuda.is_available(), reason="about a machine without a GPU")
@pytest.mark.parametrize("method", sorted(set(PACKAGES) - {"bitsandbytes"} - LATER))
def test_transformers_refuses_what_is_refused_here(method: str) -> None:
    settings: dict[str, Any] = {"fp8": {}, "quark": {"quant_config": {}}}.get(method, {})
    refused = why_not_loaded(method, gpu=False)
    try:
        config = AUTO_QUANTIZATION_CONFIG_MAPPING[method](**settings)
        quantizer = AUTO_QUANTIZER_MAPPING[method](config, pre_quantized=True)
        quantizer.validate_environment(device_map={"": "cpu"}, dtype=torch.float32)
    except Exception:  # without its package some cannot even be described
        assert refused is not None
    else:
        assert refused is None


def test_vllm_reads_the_methods_that_it_is_said_to_read() -> None:
    spec = find_spec("vllm")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent / "model_executor/layers/quantization/__init__.py"
    tree = ast.parse(source.read_text(encoding="utf-8"))
    (known,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "QuantizationMethods"
    ]
    names = {node.value for node in ast.walk(known) if isinstance(node, ast.Constant)}
    assert set(VLLM_DTYPES) - {"auto-round"} <= names  # which vLLM calls inc


@pytest.mark.parametrize(
    ("section", "gpu", "flags", "words"),
    [
        (
            {"quant_method": "fp8", "weight_block_size": [128, 128]},
            False,
            "avx2",
            "in blocks on a CPU need one with AMX",
        ),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, False, "avx2 amx_tile", None),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, True, "", None),
        ({"quant_method": "mxfp4"}, False, "avx2", "need one with AMX"),
        ({"quant_method": "mxfp8"}, True, "", None),
        ({"quant_method": "quanto"}, True, "", "vLLM reads no weights that are quantised with quanto"),
    ],
)
def test_kernels_of_vllm(section: dict[str, Any], gpu: bool, flags: str, words: str | None) -> None:
    found = why_not_generated(section, "bfloat16", gpu, flags)
    assert (found is None) if words is None else words in str(found)


def test_fp8_needs_kernels_on_a_gpu_alone() -> None:
    assert why_not_loaded("fp8", gpu=False) is None
    assert "kernels" in str(why_not_loaded("fp8", gpu=True)) or find_spec("kernels") is not None


def test_settings_that_say_nothing() -> None:
    nothing: list[dict[str, Any]] = [
        {},
        {"text_config": None},
        {"max_position_embeddings": "4096"},
        {"quantization_config": []},
    ]
    for settings in nothing:
        assert context_length(settings) is None
        assert quantisation(settings) is None
    assert context_length({"max_position_embeddings": 8192, "model_max_length": 131072}) == 131072
    assert context_length({"model_type": "gemma3", "max_position_embeddings": 8, "rope_scaling": {"factor": 8.0}}) == 8


def test_the_embedded_model_is_known_before_it_is_converted(smollm2: Path) -> None:
    assert known_size(Model()) == (layer_count(smollm2), stream_width(smollm2))


def test_a_directory_says_so_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"text_config": {"n_layer": 3, "n_embd": 8}}))
    assert known_size(Model(source=str(tmp_path))) == (3, 8)


def test_what_was_not_downloaded_is_not_known(tmp_path: Path) -> None:
    assert known_size(Model(source="nobody/nothing")) == (None, None)
    assert known_size(Model(source=str(tmp_path))) == (None, None)
