"""Where a model's decoder layers are and which hook points they have: the one place that decides it.

It needs torch and transformers, and no weights: a pass on the meta device computes shapes only.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from emoprobe.config.science.capture import STREAM_POINTS
from emoprobe.models.residual import LayerPass, Operations, ReadPoint
from emoprobe.text import first_line

DRY_SHAPE = (3, 11)  # sequences and tokens of the dry pass: numbers that no feature dimension equals


class HookPointError(ValueError):
    """A hook point or layer that the model does not have; the message says what it has."""


class UnsupportedModelError(ValueError):
    """A model whose activations cannot be captured; the message says why, in one line."""


@dataclass(frozen=True)
class Architecture:
    """The modules and hook points of a model.

    Attributes:
        layers_path: leads from the language model without its head to its decoder layers.
        n_layers: how many there are.
        d_model: width of the residual stream.
        widths: size of the last dimension at each site of a layer (a module path and its side), in firing order.
        places: what `resid_pre`, `attn_out`, `resid_mid`, `mlp_out` and `resid_post` are in this family.
        missing: of these, why there is no such place.
    """

    layers_path: str
    n_layers: int
    d_model: int
    widths: dict[str, int]
    places: dict[str, ReadPoint] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, config: PretrainedConfig) -> Architecture:
        """Read it off a model's configuration.

        Raises:
            UnsupportedModelError: it is no decoder of attention layers that are all alike.
        """
        model = _without_weights(config)
        base = language_model(model)
        path, layers = decoder_layers(base)
        with torch.no_grad(), Operations(DRY_SHAPE[1]) as operations:
            passes = [_Watched(layer, operations) for layer in layers]
            ids = torch.ones(DRY_SHAPE, dtype=torch.long, device="meta")
            try:
                # Without a mask, some look into the (missing) numbers for sequences that were joined.
                base(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
            except Exception as error:
                raise UnsupportedModelError(
                    f"a {_kind(config)} model is of no supported kind: a pass through it cannot be followed ({error})"
                ) from error
        # Layers may differ, as the first of a mixture of experts may be dense: what all of them have can be captured.
        shared = set.intersection(*(set(watched.widths) for watched in passes))
        widths = {site: width for site, width in passes[0].widths.items() if site in shared}
        if ".input" not in widths or ".output" not in widths:
            raise UnsupportedModelError(f"the layers of a {_kind(config)} model take or give no hidden states")
        if not all(watched.layer.attends for watched in passes):
            raise UnsupportedModelError(
                f"a {_kind(config)} model has layers without attention, which are not supported"
            )
        places: dict[str, ReadPoint] = {}
        missing: dict[str, str] = {}
        answers = [watched.layer.places() for watched in passes]
        for point in STREAM_POINTS:
            answer = answers[0][point]
            if any(other[point] != answer for other in answers):
                missing[point] = "it lies elsewhere in some layers than in others"
            elif isinstance(answer, str):
                missing[point] = answer
            else:
                places[point] = answer
        return cls(path, len(layers), widths[".output"], widths, places, missing)

    def layers(self, requested: str | list[int]) -> list[int]:
        """Layer indices in ascending order, negative ones resolved.

        Raises:
            HookPointError: the model has no such layer.
        """
        if requested == "all":
            return list(range(self.n_layers))
        chosen = set()
        for layer in requested:
            if isinstance(layer, str) or not -self.n_layers <= layer < self.n_layers:
                raise HookPointError(
                    f"layers: {layer!r} does not exist, the model has {self.n_layers} layers; accepted: all, or "
                    f"indices from {-self.n_layers} to {self.n_layers - 1}"
                )
            chosen.add(layer % self.n_layers)
        return sorted(chosen)

    def hook_points(self, requested: list[str]) -> list[str]:
        """Hook points in the order of a forward pass, those of the residual stream first.

        `.input` and `input` mean the same.

        Raises:
            HookPointError: the model has no such hook point.
        """
        names = [f".{name}" if name in ("input", "output") else name for name in requested]
        known = [*self.places, *self.widths]
        for name in names:
            if name in self.missing:
                raise HookPointError(f"hook_points: this model has no {name}: {self.missing[name]}")
            if name not in known:
                raise HookPointError(f"hook_points: {name!r} does not exist; accepted: {', '.join(known)}")
        return [name for name in known if name in names]

    def terms(self, point: str) -> tuple[tuple[float, str], ...]:
        """A hook point as a weighted sum of sites; (factor, site)."""
        return self.places[point].terms if point in self.places else ((1.0, point),)

    def width(self, point: str) -> int:
        """Size of the last dimension at a hook point."""
        return self.d_model if point in self.places else self.widths[point]


def language_model(model: PreTrainedModel) -> Any:
    """Return the part of a causal language model that turns token ids into hidden states, without its head.

    In some families, such as Llama 4, the attribute `base_model` is the model with its head.

    Raises:
        UnsupportedModelError: there is no such part.
    """
    base: torch.nn.Module = model.base_model
    if base is model:
        embeddings = model.get_input_embeddings()
        holders = [child for child in model.children() if any(module is embeddings for module in child.modules())]
        if len(holders) != 1 or holders[0] is embeddings:
            raise UnsupportedModelError(f"the decoder of a {_kind(model.config)} model cannot be told from its head")
        base = holders[0]
    return base


def decoder_layers(base: torch.nn.Module) -> tuple[str, torch.nn.ModuleList]:
    """The decoder layers of a base model and the path to them: its longest list of modules, lists in lists left out.

    Experts are lists in the layers' list. Where the configuration tells how many layers there are, a list of this
    length goes first.

    Raises:
        UnsupportedModelError: the model has no such list.
    """
    lists = [(name, module) for name, module in base.named_modules() if isinstance(module, torch.nn.ModuleList)]
    outer = [(name, module) for name, module in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    if not outer:
        raise UnsupportedModelError("the model has no stack of decoder layers")
    config = getattr(base, "config", None)
    told = None if config is None else getattr(config.get_text_config(), "num_hidden_layers", None)
    return max(outer, key=lambda entry: (len(entry[1]) == told, len(entry[1])))


def tensor_of(value: Any) -> Any:
    """The hidden states in what a module takes or gives: itself, or the first of a tuple."""
    return value[0] if isinstance(value, tuple) else value


def _kind(config: PretrainedConfig) -> str:
    return str(config.model_type)


def _without_weights(config: PretrainedConfig) -> PreTrainedModel:
    """The model on the meta device, computed plainly, so that every step of it can be followed."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    if not getattr(text, "num_attention_heads", None) or getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(f"a {_kind(config)} model is no decoder with attention layers, which are supported")
    config._experts_implementation = "batched_mm"
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, attn_implementation="eager"
            )
    except Exception as error:  # transformers raises whatever a configuration runs into
        raise UnsupportedModelError(
            f"a {_kind(config)} model cannot be made a causal language model: {first_line(error)}"
        ) from None
    return model.eval()  # type: ignore[no-any-return]


class _Watched:
    """A layer with hooks on all its modules, for one pass."""

    def __init__(self, layer: torch.nn.Module, operations: Operations) -> None:
        self.widths: dict[str, int] = {}
        self.layer = LayerPass(operations)
        for name, module in layer.named_modules():
            prefix = f"{name}." if name else "."
            module.register_forward_pre_hook(self._before(f"{prefix}input"), with_kwargs=True)
            module.register_forward_hook(self._after(f"{prefix}output"))

    def _before(self, site: str) -> Any:
        def record(_module: Any, args: Any, kwargs: Any) -> None:
            self._record(site, args[0] if args else next(iter(kwargs.values()), None))

        return record

    def _after(self, site: str) -> Any:
        def record(_module: Any, _args: Any, result: Any) -> None:
            self._record(site, result)

        return record

    def _record(self, site: str, value: Any) -> None:
        value = tensor_of(value)
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or site in self.widths:
            return
        sequences, tokens = DRY_SHAPE
        # Some modules take the tokens of all sequences as one row of tokens.
        flat = value.dim() == 2 and value.shape[0] == sequences * tokens
        if flat or (value.dim() >= 3 and tuple(value.shape[:2]) == DRY_SHAPE):
            self.widths[site] = value.numel() // (sequences * tokens)
            self.layer.see(site, value)
