"""Logits out of last hidden states, as a causal language model makes them."""

from __future__ import annotations

from typing import Any

import torch

ROUNDING = 4  # how many units of the last place of the largest logit two ways of computing them may differ


class Head:
    """Everything that a causal language model does with its last hidden states.

    What most families do is done here, with one call of the head. Where that gives other numbers than the model, its
    own code computes them: HyperCLOVA X multiplies where Granite divides, and ModernBERT has layers before the head.

    Args:
        causal: the model.
        base: the part of it that computes the hidden states.
        vocabulary: how many token ids it has.
    """

    def __init__(self, causal: Any, base: torch.nn.Module, vocabulary: int) -> None:
        self._causal, self._base = causal, base
        self._config = causal.config.get_text_config()
        path = next(name for name, module in causal.named_modules() if module is base)
        parent, _, self._name = path.rpartition(".")
        self._parent: torch.nn.Module = causal.get_submodule(parent)
        self._by_model = False
        self._by_model = self._differs([token % vocabulary for token in range(3, 11)])

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (n, vocabulary) of hidden states (n, d), in float32."""
        if self._by_model:
            return self._of_model(hidden)
        config = self._config
        logits: torch.Tensor = self._causal.get_output_embeddings()(hidden).float()
        # Granite and Cohere scale them, Gemma 2 bends them.
        logits = (
            logits / (getattr(config, "logits_scaling", None) or 1.0) * (getattr(config, "logit_scale", None) or 1.0)
        )
        cap = getattr(config, "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits

    def _of_model(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits by the model's own code, to which the hidden states are given in place of its layers'."""
        ids = torch.zeros((1, len(hidden)), dtype=torch.long, device=hidden.device)
        self._parent._modules[self._name] = _Given(hidden[None])
        try:
            logits: torch.Tensor = self._causal(input_ids=ids, use_cache=False).logits[0]
        finally:
            self._parent._modules[self._name] = self._base
        return logits.float()

    @torch.inference_mode()
    def _differs(self, ids: list[int]) -> bool:
        """Return whether the logits of some tokens are not those of the model."""
        inputs = torch.tensor([ids], device=self._causal.get_input_embeddings().weight.device)
        expected = self._causal(input_ids=inputs, use_cache=False).logits[0].float()
        try:
            found = self.logits(self._base(input_ids=inputs, use_cache=False).last_hidden_state[0])
            error = float((found.to(expected.device) - expected).abs().max() / expected.abs().max())
        except RuntimeError:  # of another shape
            return True
        return not error <= ROUNDING * torch.finfo(self._causal.dtype).eps


class _Given(torch.nn.Module):
    """Hidden states in place of the layers that compute them."""

    def __init__(self, hidden: torch.Tensor) -> None:
        super().__init__()
        self._hidden = hidden

    def forward(self, *_args: Any, **_kwargs: Any) -> _Outputs:
        """Return them, whatever is asked."""
        return _Outputs(self._hidden)


class _Outputs:
    """Outputs of layers of which only the hidden states are there."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: int) -> torch.Tensor:
        """Return the hidden states, which all families put first."""
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        """Return None, as for any output that was not asked for."""
        if name.startswith("__"):
            raise AttributeError(name)
