"""Where the residual stream and its parts can be read, in tiny random models of many families."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from emoprobe.config.science.capture import STREAM_POINTS
from emoprobe.models.architecture import (
    Architecture,
    HookPointError,
    UnsupportedModelError,
    decoder_layers,
    language_model,
    tensor_of,
)
from emoprobe.models.residual import ReadPoint
from tests.emoprobe.models.families import FAMILIES, LAYERS, WIDTH, config

PARALLEL = {"phi", "gptj", "gpt_neox_parallel", "falcon", "falcon_new", "cohere", "cohere2"}
NORM_ON_THE_STREAM = {"opt_norm_after", "bloom_residual_after_norm"}
TOLERANCE = 1e-5


def random_model(family: str) -> Any:
    """A model whose weights are large enough to tell its parts apart."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(family)).eval()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for parameter in model.parameters():
            _ = parameter.normal_(0, 0.3) if parameter.dim() > 1 else parameter.uniform_(0.5, 1.5)
    return model


def values(model: Any, path: str) -> list[dict[str, torch.Tensor]]:
    """For each layer, what each site holds in a pass over two sequences."""
    found: list[dict[str, torch.Tensor]] = []
    layers = language_model(model).get_submodule(path)

    def keep(layer: int, site: str, value: Any) -> None:
        value = tensor_of(value)
        if isinstance(value, torch.Tensor) and value.is_floating_point() and value.numel() % 18 == 0:
            found[layer].setdefault(site, value.reshape(2, 9, -1).clone())

    for number, layer in enumerate(layers):
        found.append({})
        for name, module in layer.named_modules():
            prefix = f"{name}." if name else "."
            module.register_forward_pre_hook(
                lambda _m, args, kwargs, n=number, p=prefix: keep(
                    n, f"{p}input", (args or (*kwargs.values(), None))[0]
                ),
                with_kwargs=True,
            )
            module.register_forward_hook(lambda _m, _a, out, n=number, p=prefix: keep(n, f"{p}output", out))
    with torch.inference_mode():
        language_model(model)(input_ids=torch.randint(3, 190, (2, 9)), use_cache=False)
    return found


def read(place: ReadPoint, seen: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack([factor * seen[site] for factor, site in place.terms]).sum(0)


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_stream_is_the_sum_of_its_parts(family: str) -> None:
    architecture = Architecture.of(config(family))
    assert (architecture.n_layers, architecture.d_model) == (LAYERS, WIDTH)
    missing = {"resid_mid"} if family in PARALLEL else set()
    missing |= {"attn_out", "resid_mid", "mlp_out"} if family in NORM_ON_THE_STREAM else set()
    assert set(architecture.missing) == missing
    assert set(architecture.places) == set(STREAM_POINTS) - missing
    for seen in values(random_model(family), architecture.layers_path):
        part = {name: read(place, seen) for name, place in architecture.places.items()}
        assert set(architecture.widths) <= set(seen)
        for site, width in architecture.widths.items():
            assert seen[site].shape == (2, 9, width), site
        if family in NORM_ON_THE_STREAM:
            continue
        # The parts are large enough for a wrong one to show.
        assert min(float(part[name].abs().max()) for name in ("attn_out", "mlp_out")) > 1e-2
        between = part["resid_pre"] + part["attn_out"]
        if family not in PARALLEL:
            assert error(part["resid_mid"], between) <= TOLERANCE
        assert error(between + part["mlp_out"], part["resid_post"]) <= TOLERANCE


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - NORM_ON_THE_STREAM))
def test_attention_is_the_part_that_looks_back(family: str) -> None:
    """In the first layer, the last token's MLP output follows from the stream there; attention's from other tokens."""
    architecture = Architecture.of(config(family))
    model = random_model(family)
    ids = torch.randint(3, 190, (1, 9))
    other = ids.clone()
    other[0, 0] = (other[0, 0] - 3 + 1) % 187 + 3
    changed = []
    for tokens in (ids, other):
        seen: dict[str, torch.Tensor] = {}
        handles = []
        for name, module in decoder_layers(language_model(model))[1][0].named_modules():
            prefix = f"{name}." if name else "."

            def before(_m: Any, args: Any, kwargs: Any, seen: Any = seen, site: str = f"{prefix}input") -> None:
                value = tensor_of(args[0] if args else next(iter(kwargs.values()), None))
                if isinstance(value, torch.Tensor):
                    seen.setdefault(site, value.clone())

            def after(_m: Any, _a: Any, out: Any, seen: Any = seen, site: str = f"{prefix}output") -> None:
                value = tensor_of(out)
                if isinstance(value, torch.Tensor):
                    seen.setdefault(site, value.clone())

            handles += [module.register_forward_pre_hook(before, with_kwargs=True), module.register_forward_hook(after)]
        with torch.inference_mode():
            language_model(model)(input_ids=tokens, use_cache=False)
        for handle in handles:
            handle.remove()
        sites = {site for place in architecture.places.values() for _, site in place.terms}
        flat = {site: value.reshape(9, -1) for site, value in seen.items() if site in sites}
        changed.append({name: read(place, flat)[-1] for name, place in architecture.places.items()})
    first, second = changed
    assert torch.equal(first["resid_pre"], second["resid_pre"])
    assert not torch.allclose(first["attn_out"], second["attn_out"], atol=1e-5)
    if family in PARALLEL:
        assert torch.allclose(first["mlp_out"], second["mlp_out"], atol=1e-6)


@pytest.mark.parametrize("experts", [4, 8])
@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "deepseek_v3"])
def test_experts_are_no_layers(family: str, experts: int) -> None:
    settings = config(family)
    for name in ("num_local_experts", "num_experts", "n_routed_experts"):
        if hasattr(settings, name):
            setattr(settings, name, experts)
    settings.num_hidden_layers = 4
    assert Architecture.of(settings).layers("all") == [0, 1, 2, 3]


def test_lists_of_experts_in_layers_are_no_layers() -> None:
    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(8))

    class Base(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(Layer() for _ in range(4))

    path, layers = decoder_layers(Base())
    assert (path, len(layers)) == ("layers", 4)
    with pytest.raises(UnsupportedModelError, match="no stack of decoder layers"):
        decoder_layers(torch.nn.Linear(2, 2))


def test_layers_that_differ_share_what_all_have() -> None:
    architecture = Architecture.of(config("qwen3_moe_first_layer_dense"))
    assert "mlp.output" in architecture.widths
    assert "mlp.gate_proj.output" not in architecture.widths
    assert "mlp.gate_proj.output" in Architecture.of(config("qwen3")).widths


def test_what_a_model_lacks_is_said() -> None:
    architecture = Architecture.of(config("gptj"))
    with pytest.raises(HookPointError, match=r"no resid_mid: attention and MLP stand side by side"):
        architecture.hook_points(["resid_mid"])
    with pytest.raises(HookPointError, match=r"'nose.output' does not exist; accepted: resid_pre, attn_out"):
        architecture.hook_points(["nose.output"])
    with pytest.raises(HookPointError, match=r"3 does not exist, the model has 3 layers; .* -3 to 2"):
        architecture.layers([3])
    assert architecture.layers([-1, 0]) == [0, 2]
    assert architecture.hook_points(["output", "mlp.output", "resid_pre"]) == ["resid_pre", "mlp.output", ".output"]


@pytest.mark.parametrize(
    "kind", ["mamba", "mamba2", "rwkv", "t5", "bert", "bamba", "jamba", "recurrent_gemma", "clip", "falcon_mamba"]
)
def test_a_model_of_no_supported_kind_gets_one_line(kind: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        Architecture.of(AutoConfig.for_model(kind))
    assert kind in str(caught.value)
    assert "\n" not in str(caught.value)


def test_places_are_sums_that_can_be_read() -> None:
    pre, attention = ReadPoint(((1.0, ".input"),)), ReadPoint(((0.22, "self_attn.output"),))
    assert str(pre + attention) == ".input + 0.22 * self_attn.output"
    assert str(ReadPoint(((1.0, ".output"),)) - (pre + attention)) == ".output - .input - 0.22 * self_attn.output"
    assert pre + attention - pre == attention
