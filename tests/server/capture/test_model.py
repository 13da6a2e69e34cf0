"""The served model in this process: parts of the residual stream equal hooks that are placed by hand."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from emoprobe.models.architecture import UnsupportedModelError
from server.capture.activations import ActivationWriter, Captures
from server.capture.edits import LayerEdit, SequenceEdits, SteeredRows
from server.capture.engine import BatchEngine
from server.capture.model import ForwardInput, ServedModel, placement
from server.capture.schema import Ndif
from tests.emoprobe.models.families import LAYERS
from tests.server.capture import tiny_models

TOLERANCE = 1e-5
# Written down from the models' source: what attention and MLP add to the stream, and how much of it.
PARTS: dict[str, tuple[str, str, str, float]] = {
    "llama": ("layers", "self_attn", "mlp", 1.0),
    "mistral": ("layers", "self_attn", "mlp", 1.0),
    "mixtral": ("layers", "self_attn", "mlp", 1.0),
    "qwen2": ("layers", "self_attn", "mlp", 1.0),
    "qwen3": ("layers", "self_attn", "mlp", 1.0),
    "qwen3_moe": ("layers", "self_attn", "mlp", 1.0),
    "qwen3_moe_first_layer_dense": ("layers", "self_attn", "mlp", 1.0),
    "gemma2": ("layers", "post_attention_layernorm", "post_feedforward_layernorm", 1.0),
    "gemma3_text": ("layers", "post_attention_layernorm", "post_feedforward_layernorm", 1.0),
    "phi3": ("layers", "self_attn", "mlp", 1.0),
    "gpt2": ("h", "attn", "mlp", 1.0),
    "gpt_neox_parallel": ("layers", "attention", "mlp", 1.0),
    "gpt_neox_sequential": ("layers", "attention", "mlp", 1.0),
    "opt": ("decoder.layers", "self_attn", "fc2", 1.0),
    "falcon": ("h", "self_attention", "mlp", 1.0),
    "bloom": ("h", "self_attention.dense", "mlp.dense_4h_to_h", 1.0),
    "olmo2": ("layers", "post_attention_layernorm", "post_feedforward_layernorm", 1.0),
    "gpt_oss": ("layers", "self_attn", "mlp", 1.0),
    "smollm3": ("layers", "self_attn", "mlp", 1.0),
    "granite": ("layers", "self_attn", "mlp", 0.22),
    "cohere": ("layers", "self_attn", "mlp", 1.0),
}
PARALLEL = {"gpt_neox_parallel", "falcon", "cohere"}


def by_hand(model: Any, family: str, ids: list[int]) -> dict[str, torch.Tensor]:
    """Hook point → (n_layers, n_tokens, d), from hooks on Hugging Face's model."""
    path, attention, mlp, factor = PARTS[family]
    seen: dict[str, list[torch.Tensor]] = {}

    def keep(name: str, value: Any, scale: float = 1.0) -> None:
        value = value[0] if isinstance(value, tuple) else value
        seen.setdefault(name, []).append(value.detach().reshape(len(ids), -1) * scale)

    handles = []
    for layer in model.base_model.get_submodule(path):
        handles.append(
            layer.register_forward_pre_hook(
                lambda _m, args, kwargs: keep("resid_pre", args[0] if args else kwargs["hidden_states"]),
                with_kwargs=True,
            )
        )
        for name, part in (("attn_out", attention), ("mlp_out", mlp)):
            handles.append(
                layer.get_submodule(part).register_forward_hook(lambda _m, _a, out, n=name: keep(n, out, factor))
            )
        handles.append(layer.register_forward_hook(lambda _m, _a, out: keep("resid_post", out)))
    with torch.inference_mode():
        model(torch.tensor([ids]))
    for handle in handles:
        handle.remove()
    found = {name: torch.stack(values) for name, values in seen.items()}
    return found if family in PARALLEL else found | {"resid_mid": found["resid_pre"] + found["attn_out"]}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float(((found - expected).abs() / expected.abs().amax(dim=(1, 2), keepdim=True)).max())


@pytest.mark.parametrize("family", PARTS)
def test_parts_of_the_stream_equal_hooks_placed_by_hand(family: str, tmp_path: Path) -> None:
    folder = tiny_models.make_of_family(family, tmp_path)
    served = ServedModel(str(folder), "tiny", "float32", "cpu")
    reference: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    reference.eval()
    generator = random.Random(0)
    batch = [[generator.randrange(3, 190) for _ in range(length)] for length in (12, 5)]
    layers = list(range(LAYERS))
    points = list(served.architecture.places)
    whole = served.forward([ForwardInput(ids, layers, points, None, torch.float32) for ids in batch])
    means = served.forward([ForwardInput(ids, layers, points, [(0, len(ids))], torch.float32) for ids in batch])
    for ids, every, mean in zip(batch, whole, means, strict=True):
        expected = by_hand(reference, family, ids)
        assert set(points) == set(expected)
        for name, tensor in expected.items():
            assert relative_error(every.activations[name], tensor) <= TOLERANCE, name
            assert relative_error(mean.activations[name], tensor.mean(1, keepdim=True)) <= TOLERANCE, name


def test_what_is_written_in_place_is_copied_first(tmp_path: Path) -> None:
    """Falcon adds attention's output to the MLP's in place, after the MLP is done."""
    served = ServedModel(str(tiny_models.make_of_family("falcon", tmp_path)), "tiny", "float32", "cpu")
    ids = list(range(3, 12))
    (every,) = served.forward([ForwardInput(ids, [0], ["mlp.output"], None, torch.float32)])
    (single,) = served.forward(
        [ForwardInput(ids, [0], ["mlp.output"], [(token, token + 1) for token in range(9)], torch.float32)]
    )
    assert torch.allclose(every.activations["mlp.output"], single.activations["mlp.output"], atol=1e-6)


def test_a_model_whose_numbers_contradict_its_structure_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.llama import modeling_llama

    folder = tiny_models.make_of_family("llama", tmp_path)
    forward = modeling_llama.LlamaDecoderLayer.forward

    def scaled(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        out: torch.Tensor = forward(self, hidden_states, *args, **kwargs)
        return out if out.device.type == "meta" else out * 1.5

    monkeypatch.setattr(modeling_llama.LlamaDecoderLayer, "forward", scaled)
    with pytest.raises(UnsupportedModelError, match="resid_post of this model is not the sum of its parts"):
        ServedModel(str(folder), "tiny", "float32", "cpu")


def test_layers_on_several_devices_are_steered_and_averaged_where_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device `meta` stands for a second one: PyTorch refuses operations that mix it with the CPU."""
    cpu, other = torch.device("cpu"), torch.device("meta")
    edits = tuple(LayerEdit(layer, layer, torch.ones(4) / 2, 1.0 if layer else None, "all") for layer in (0, 1))
    rows = SteeredRows([SequenceEdits(edits, 1), None], [cpu, other])
    rows.begin(torch.zeros((2, 3), dtype=torch.long))
    for layer, device in enumerate((cpu, other)):
        assert rows.apply(layer, torch.ones((2, 3, 4), device=device)).device == device
    rows.finish()
    served = ServedModel(str(tiny_models.make_of_family("llama", tmp_path)), "tiny", "float32", "cpu")
    monkeypatch.setattr(served, "devices", [cpu, other, other])
    weights = served._weights([ForwardInput([3, 4], [0], ["resid_post"], [(0, 2)], torch.float32)], 2)
    assert weights is not None
    assert {device: weight.device for device, weight in weights.items()} == {cpu: cpu, other: other}
    assert torch.bmm(weights[other], torch.ones((1, 2, 4), device=other)).device == other


def test_a_model_is_divided_over_the_gpus_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, expected in ((1, "cuda"), (4, "auto")):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert placement("cuda") == expected
        assert [placement(device) for device in ("cpu", "cuda:1")] == ["cpu", "cuda:1"]


@pytest.mark.parametrize(("dtype", "stored"), [("bfloat16", "bfloat16"), ("float32", "float16")])
def test_activations_are_stored_in_a_type_that_holds_them(tmp_path: Path, dtype: str, stored: str) -> None:
    served = ServedModel(str(tiny_models.make_of_family("llama", tmp_path / "model")), "tiny", dtype, "cpu")
    engine = BatchEngine(served, batch_tokens=100, memory=1000)
    engine.close()
    captures = Captures(served, engine, ActivationWriter(tmp_path / "root"))
    requests = [captures.plan(Ndif(save_dir="a")), captures.plan(Ndif(save_dir="a", dtype="float32"))]
    assert [request.dtype for request in requests if request is not None] == [stored, "float32"]
    assert captures.defaults(None).dtype == stored
