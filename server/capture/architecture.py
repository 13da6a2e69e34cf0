"""Where a model's decoder layers are, which hook points they have, and in which order these fire."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

PROBE_SHAPE = (2, 7)  # batch and tokens of the probing pass: two numbers that no feature dimension equals


class HookPointError(ValueError):
    """A hook point or layer that the model does not have; the message says what it has."""


@dataclass(frozen=True)
class Architecture:
    """What can be captured.

    `layers_path` leads from the base model to its decoder layers. `widths` maps each hook point to the size of its
    last dimension, in the order in which they fire inside a layer.
    """

    layers_path: str
    n_layers: int
    d_model: int
    widths: dict[str, int]

    @classmethod
    def probe(cls, base: torch.nn.Module) -> Architecture:
        """Find the layers and run one small pass to see which tensors pass through the modules of a layer.

        Raises:
            HookPointError: the model has no stack of decoder layers.
        """
        path, layers = _decoder_layers(base)
        widths: dict[str, int] = {}
        handles = []
        for name, module in layers[0].named_modules():
            prefix = f"{name}." if name else "."
            before, after = f"{prefix}input", f"{prefix}output"
            handles.append(module.register_forward_pre_hook(_recorder(widths, before), with_kwargs=True))
            handles.append(module.register_forward_hook(_result_recorder(widths, after)))
        device = next(base.parameters()).device
        try:
            with torch.inference_mode():
                base(input_ids=torch.ones(PROBE_SHAPE, dtype=torch.long, device=device), use_cache=False)
        finally:
            for handle in handles:
                handle.remove()
        if ".output" not in widths:
            raise HookPointError("the decoder layers of this model return no hidden states")
        return cls(path, len(layers), widths[".output"], widths)

    def layers(self, wanted: str | list[int]) -> list[int]:
        """Layer indices in ascending order, negative ones resolved.

        Raises:
            HookPointError: the model has no such layer.
        """
        if wanted == "all":
            return list(range(self.n_layers))
        chosen = set()
        for layer in wanted:
            if isinstance(layer, str) or not -self.n_layers <= layer < self.n_layers:
                raise HookPointError(
                    f"layers: {layer!r} does not exist; accepted: all, or indices from {-self.n_layers} "
                    f"to {self.n_layers - 1}"
                )
            chosen.add(layer % self.n_layers)
        return sorted(chosen)

    def hook_points(self, wanted: list[str]) -> list[str]:
        """Hook points in the order in which they fire; `.input` and `input` mean the same.

        Raises:
            HookPointError: the model has no such hook point.
        """
        names = [f".{name}" if name in ("input", "output") else name for name in wanted]
        for name in names:
            if name not in self.widths:
                raise HookPointError(f"hook_points: {name!r} does not exist; accepted: {', '.join(self.widths)}")
        return [name for name in self.widths if name in names]


def tensor_of(value: Any) -> Any:
    """The hidden states in what a module takes or gives: itself, or the first of a tuple."""
    return value[0] if isinstance(value, tuple) else value


def _decoder_layers(base: torch.nn.Module) -> tuple[str, torch.nn.ModuleList]:
    """The longest list of modules that is not inside another one."""
    lists = [(name, module) for name, module in base.named_modules() if isinstance(module, torch.nn.ModuleList)]
    outer = [(name, module) for name, module in lists if not any(name.startswith(f"{other}.") for other, _ in lists)]
    if not outer:
        raise HookPointError("the model has no stack of decoder layers")
    return max(outer, key=lambda entry: len(entry[1]))


def _width(value: Any) -> int | None:
    value = tensor_of(value)
    if not isinstance(value, torch.Tensor) or value.dim() < 3 or tuple(value.shape[:2]) != PROBE_SHAPE:
        return None
    return int(value.flatten(2).shape[2]) if value.is_floating_point() else None


def _recorder(widths: dict[str, int], name: str) -> Any:
    def record(_module: Any, args: Any, kwargs: Any) -> None:
        first = args[0] if args else next(iter(kwargs.values()), None)
        width = _width(first)
        if width is not None:
            widths.setdefault(name, width)

    return record


def _result_recorder(widths: dict[str, int], name: str) -> Any:
    def record(_module: Any, _args: Any, result: Any) -> None:
        width = _width(result)
        if width is not None:
            widths.setdefault(name, width)

    return record
