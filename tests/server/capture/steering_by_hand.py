"""Steering in the plainest way: hooks on Hugging Face's own model, for one sequence at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

Edit = dict[str, Any]


@contextmanager
def edited(model: Any, edits: list[Edit], prompt_tokens: int) -> Iterator[None]:
    """Edit what one sequence's decoder layers give, as a request's `ndif.steering` says; with a cache or without.

    Each entry of `edits` gives its direction as `values`. A cache is filled by the passes inside, from the first on.
    """
    handles = []
    for number, layer in enumerate(decoder_layers(model)):
        own = [edit for edit in edits if edit["layers"] == "all" or number in edit["layers"]]
        handles.append(layer.register_forward_hook(_Hook(own, prompt_tokens)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def decoder_layers(model: Any) -> nn.ModuleList:
    """The decoder layers of a model."""
    count = model.config.num_hidden_layers
    return next(part for part in model.modules() if isinstance(part, nn.ModuleList) and len(part) == count)


class _Hook:
    def __init__(self, edits: list[Edit], prompt_tokens: int) -> None:
        self._edits, self._prompt_tokens, self._seen = edits, prompt_tokens, 0

    def __call__(self, _module: Any, _args: Any, output: Any) -> Any:
        hidden = (output[0] if isinstance(output, tuple) else output).clone()
        for place in range(hidden.shape[1]):
            token = self._seen + place
            for edit in self._edits:
                if edit.get("phase", "all") in ("all", "prompt" if token < self._prompt_tokens else "generation"):
                    values = torch.tensor(edit["values"])
                    unit = values / values.norm()
                    if edit["operation"] == "add":
                        hidden[0, place] += edit["dose"] * values
                    else:
                        hidden[0, place] -= (hidden[0, place] @ unit) * unit
        self._seen += hidden.shape[1]
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden


def without_cache(model: Any, ids: list[int], edits: list[Edit], count: int) -> list[int]:
    """The next tokens, greedily, every one by a pass over the whole sequence."""
    given = list(ids)
    for _ in range(count):
        given.append(int(logits(model, given, edits, len(ids))[-1].argmax()))
    return given[len(ids) :]


def generated(model: Any, ids: list[int], edits: list[Edit], count: int) -> list[int]:
    """The next tokens, greedily, by `generate` with its cache; no token ends them."""
    model.generation_config.eos_token_id = None
    with edited(model, edits, len(ids)), torch.inference_mode():
        found: list[int] = model.generate(
            torch.tensor([ids]), attention_mask=torch.ones((1, len(ids))), do_sample=False, max_new_tokens=count
        )[0, len(ids) :].tolist()
    return found


def logits(model: Any, ids: list[int], edits: list[Edit], prompt_tokens: int) -> torch.Tensor:
    """(n_tokens, vocabulary) of one pass over a sequence."""
    with edited(model, edits, prompt_tokens), torch.inference_mode():
        found: torch.Tensor = model(torch.tensor([ids]), use_cache=False).logits[0]
    return found


def streams(model: Any, ids: list[int], edits: list[Edit], prompt_tokens: int) -> torch.Tensor:
    """(n_layers, n_tokens, d), the outputs of the decoder layers in one pass over a sequence."""
    seen: list[torch.Tensor] = []
    with edited(model, edits, prompt_tokens):
        # Hooks run in the order in which they are placed, so these see what the edits gave.
        handles = [
            layer.register_forward_hook(
                lambda _module, _args, output: seen.append((output[0] if isinstance(output, tuple) else output)[0])
            )
            for layer in decoder_layers(model)
        ]
        with torch.inference_mode():
            model(torch.tensor([ids]), use_cache=False)
        for handle in handles:
            handle.remove()
    return torch.stack(seen)
