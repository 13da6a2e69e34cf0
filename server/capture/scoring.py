"""What a model thinks of a text: the log-probabilities of its tokens, and how far an edit moves its predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

LOGIT_CHUNK = 256  # positions whose logits are held at once


@dataclass(frozen=True)
class TokenScores:
    """Log-probabilities of a sequence's tokens given those before, from the second token on, and the likeliest ones."""

    token: list[float]
    top: list[list[tuple[int, float]]]


class Scorer:
    """Turns the last hidden states of a causal language model into numbers about its predictions."""

    def __init__(self, causal: Any) -> None:
        self._causal = causal
        self._config = causal.config.get_text_config()

    def scores(self, token_ids: list[int], top: int, hidden: torch.Tensor) -> TokenScores:
        """Scores of a sequence.

        Args:
            token_ids: its n tokens.
            top: how many of the likeliest tokens to name at each place.
            hidden: (>= n, d), the last hidden states.
        """
        token: list[float] = []
        best: list[list[tuple[int, float]]] = []
        targets = torch.tensor(token_ids[1:], device=hidden.device)
        for begin, end in _chunks(len(targets), LOGIT_CHUNK):
            logs = torch.log_softmax(self._logits(hidden[begin:end]), dim=-1)
            token += logs.gather(1, targets[begin:end, None])[:, 0].tolist()
            if top:
                likeliest = logs.topk(top, dim=-1)
                pairs = zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True)
                best += [list(zip(ids, values, strict=True)) for ids, values in pairs]
        return TokenScores(token, best)

    def divergences(self, edited: torch.Tensor, unedited: torch.Tensor) -> list[float]:
        """The Kullback-Leibler divergences KL(edited ‖ unedited), in nats, of the predictions at each place.

        Args:
            edited: (n, d), the last hidden states under an edit.
            unedited: (n, d), those of the same tokens without it.
        """
        found: list[float] = []
        for begin, end in _chunks(len(edited), LOGIT_CHUNK // 4):  # in float64, and of two passes
            under, without = (
                torch.log_softmax(self._logits(hidden[begin:end]).double(), dim=-1) for hidden in (edited, unedited)
            )
            found += (under.exp() * (under - without)).sum(-1).tolist()
        return found

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits, with what some families do after the head: Granite and Cohere scale them, Gemma 2 bends them."""
        config = self._config
        logits: torch.Tensor = self._causal.get_output_embeddings()(hidden).float()
        logits = (
            logits / (getattr(config, "logits_scaling", None) or 1.0) * (getattr(config, "logit_scale", None) or 1.0)
        )
        cap = getattr(config, "final_logit_softcapping", None)
        return torch.tanh(logits / cap) * cap if cap else logits


def _chunks(length: int, size: int) -> Iterator[tuple[int, int]]:
    return ((begin, min(begin + size, length)) for begin in range(0, length, size))
