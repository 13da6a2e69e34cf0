"""How servers share GPUs: by the size of the weights, the number and the memory of the GPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from emoprobe.config.files import parse_config
from emoprobe.models.footprint import Footprint, count_parameters
from emoprobe.models.placement import ALONE, Placement, PlacementError, ServerNeeds, place
from emoprobe.models.resolved import placed, with_placement
from emoprobe.models.server_hardware import ServerHardware
from tests import nvidia_smi
from tests.emoprobe.models.placements import CONFIGS, PAGE, table

NEEDS = ServerNeeds(generates=True, captures=True, length=4096, requests=64, batch_tokens=4096, dtype="bfloat16")
# 8 × 10⁹ parameters, as in Llama-3.1-8B.
EIGHT = Footprint(16 * 10**9, 16 * 10**9, 131072, 32, 8, 32, 4096, 14336, 128256, 131072)
SEVENTY = Footprint(141 * 10**9, 141 * 10**9, 327680, 64, 8, 80, 8192, 28672, 128256, 131072)


def test_the_table_of_the_documentation_is_what_the_code_decides() -> None:
    assert table() in PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("size", "gpus", "options", "expected"),
    [
        (EIGHT, [85.5], {}, ("together", 1, 0.65)),
        (EIGHT, [25.4], {}, ("turns", 1, ALONE)),
        (EIGHT, [25.4, 25.4], {}, ("turns", 1, ALONE)),
        (EIGHT, [25.4] * 4, {}, ("together", 4, 0.6)),
        (EIGHT, [85.5], {"sharing": "turns"}, ("turns", 1, ALONE)),
        (EIGHT, [85.5, 25.4], {}, ("turns", 1, ALONE)),  # the smallest GPU counts
        (EIGHT, [85.5] * 4, {"tensor_parallel": 2}, ("together", 2, 0.75)),
        (EIGHT, [85.5], {"gpu_memory": 0.4}, ("together", 1, 0.4)),
        (SEVENTY, [85.5] * 4, {}, ("turns", 4, ALONE)),
        (SEVENTY, [141.0] * 4, {}, ("together", 4, 0.6)),
    ],
)
def test_both_servers_stand_together_where_they_fit(
    size: Footprint, gpus: list[float], options: dict[str, Any], expected: tuple[str, int, float]
) -> None:
    found = place(size, gpus, NEEDS, **options)
    assert (found.sharing, found.tensor_parallel, found.gpu_memory) == expected


def test_what_is_decided_fits() -> None:
    for memory in (25.4, 48.0, 85.5, 141.0):
        for count in (1, 2, 4, 8):
            for size in (EIGHT, SEVENTY):
                try:
                    found = place(size, [memory] * count, NEEDS)
                except PlacementError:
                    continue
                held = found.gpu_memory * memory * 1e9
                cache = found.concurrent * 4096 * size.cache / min(found.tensor_parallel, size.cache_heads)
                assert size.weights / found.tensor_parallel + cache < held
                if found.sharing == "together":
                    assert held + size.loaded / found.tensor_parallel < ALONE * memory * 1e9
                    assert found.concurrent >= 8


@pytest.mark.parametrize(
    ("gpus", "options", "words"),
    [
        ([85.5], {}, ["does not fit", "vLLM needs", "the capture server needs", "there are 1 with 85.5 GB"]),
        ([85.5] * 4, {"sharing": "together"}, ["workers.gpu_sharing: together", "on each of 4 GPUs"]),
        ([85.5] * 4, {"tensor_parallel": 1}, ["on a GPU"]),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_the_figures(
    gpus: list[float], options: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(PlacementError) as caught:
        place(SEVENTY, gpus, NEEDS, **options)
    for word in words:
        assert word in str(caught.value)


def test_several_servers_divide_the_gpus() -> None:
    needs = ServerNeeds(True, True, 4096, 64, 4096, "bfloat16", count=2)
    assert place(EIGHT, [85.5] * 4, needs).tensor_parallel == 1
    assert place(EIGHT, [285.0], needs).gpu_memory < place(EIGHT, [285.0], NEEDS).gpu_memory / 1.5
    one_kind = ServerNeeds(True, False, 4096, 64, 4096, "bfloat16")
    assert place(EIGHT, [25.4], one_kind) == Placement(None, 1, ALONE, 6, "it needs 19.7 GB of the usable 22.9 GB")


def test_weights_are_counted_by_the_headers_of_their_files_or_on_the_meta_device(tmp_path: Path) -> None:
    settings = json.loads((CONFIGS / "Qwen3-0.6B/config.json").read_text())
    settings |= {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "vocab_size": 1000}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    parameters = count_parameters(tmp_path)
    by_model = Footprint.of(tmp_path, "bfloat16")
    assert parameters is not None
    assert by_model is not None
    assert by_model.weights == 2 * parameters
    save_file({"a": np.zeros((10, 7), np.float32), "b": np.zeros(3, np.float16)}, tmp_path / "model.safetensors")
    for dtype, width in (("bfloat16", 2), ("float32", 4)):
        by_file = Footprint.of(tmp_path, dtype)
        assert by_file is not None
        assert by_file.weights == by_file.loaded == 73 * width
        assert by_file.cache == 2 * 2 * 8 * 128 * width
    settings["quantization_config"] = {"quant_method": "fp8"}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    quantised = Footprint.of(tmp_path, "bfloat16")
    assert quantised is not None
    assert (quantised.weights, quantised.loaded) == (4 * 70 + 2 * 3, 2 * parameters)
    (tmp_path / "config.json").write_text("{}")
    assert Footprint.of(tmp_path, "bfloat16") is None


@pytest.mark.parametrize("name", sorted(path.name for path in CONFIGS.iterdir()))
def test_known_models_have_the_size_that_their_authors_name(name: str) -> None:
    sizes = {"Qwen3-0.6B": 0.596, "Qwen3-8B": 8.19, "Llama-3.1-8B": 8.03, "Llama-3.3-70B": 70.6, "Gemma-3-4B": 4.3,
             "Gemma-3-27B": 27.4, "gpt-oss-20b": 20.9, "Mixtral-8x7B": 46.7}  # fmt: skip
    parameters = count_parameters(CONFIGS / name)
    assert parameters is not None
    assert parameters / 1e9 == pytest.approx(sizes[name], rel=0.01)


def test_the_gpus_of_this_machine_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_config({"model": {"dtype": "bfloat16"}, "generation": {"engine": {"max_model_len": 4096}}})
    model = CONFIGS / "Qwen3-8B"
    # A capture server measures what its passes may take where it has the GPU to itself.
    for memory, sharing, share, tokens in ([81559], "together", 0.65, 4096), ([24564], "turns", ALONE, "auto"):
        nvidia_smi.install(tmp_path / "bin", monkeypatch, memory)
        found = with_placement(config, model).workers
        assert (found.gpu_sharing, found.gpu_memory, found.batch_tokens) == (sharing, share, tokens)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert ServerHardware.of(config) == ServerHardware("cpu")
    assert with_placement(config, model).workers.batch_tokens == 4096
    jobs = config.model_copy(update={"workers": parse_config({"workers": {"slurm": [{"gres": "gpu:2"}]}}).workers})
    assert with_placement(jobs, model).workers.gpu_memory == ALONE
    assert with_placement(jobs, model).workers.batch_tokens == "auto"
    monkeypatch.undo()
    nvidia_smi.forget()


def test_without_gpus_nothing_is_decided() -> None:
    config = parse_config({})
    assert placed(config, CONFIGS / "Qwen3-8B", ServerHardware("cpu"), "float32") is None
    assert placed(config, CONFIGS / "Qwen3-8B", ServerHardware("gpu"), "bfloat16") is None
