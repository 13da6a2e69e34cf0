"""Generating: cohorts of requests that take one step after the other, so that none waits for a stranger to finish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache

from server.capture.model import ServedModel
from server.capture.prompts import Decoder
from server.capture.steering import Steering

Logprob = tuple[float, list[tuple[int, float]]]


@dataclass(eq=False)
class Generation:
    """One choice that is being generated.

    `on_step` is called after every token, and once more at the end, when `finish` is set.
    """

    prompt_ids: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    decoder: Decoder
    on_step: Callable[[], None]
    ignore_eos: bool = False
    logprobs: int | None = None
    steering: Steering | None = None
    token_ids: list[int] = field(default_factory=list)
    scores: list[Logprob] = field(default_factory=list)
    finish: str | None = None
    cancelled: bool = False
    _generator: torch.Generator | None = None

    @property
    def size(self) -> int:
        """Tokens that it may come to hold in the cache."""
        return len(self.prompt_ids) + self.max_tokens

    def choose(self, logits: torch.Tensor) -> int:
        """The next token: the likeliest, or one drawn from the nucleus (Holtzman et al. 2020) with its own seed."""
        if self.temperature < 1e-5:
            return int(logits.argmax())
        if self._generator is None:
            self._generator = torch.Generator()
            _ = self._generator.seed() if self.seed is None else self._generator.manual_seed(self.seed)
        probabilities = torch.softmax(logits.double() / self.temperature, dim=-1)
        ordered, ids = probabilities.sort(descending=True, stable=True)
        cumulative = ordered.cumsum(0)
        # The token that crosses the threshold is still inside.
        inside = int((cumulative - ordered < self.top_p).sum())
        point = torch.rand((), generator=self._generator, dtype=torch.float64) * cumulative[inside - 1]
        return int(ids[min(int((cumulative[:inside] < point).sum()), inside - 1)])

    def take(self, token: int, eos_ids: frozenset[int]) -> None:
        """Record the next token and see whether it was the last."""
        self.token_ids.append(token)
        ended = token in eos_ids and not self.ignore_eos
        last = ended or len(self.token_ids) >= self.max_tokens
        self.decoder.add(token, final=last)
        if ended or self.decoder.stopped:
            self.finish = "stop"
        elif last:
            self.finish = "length"


class Cohort:
    """Requests that were admitted together; a padded batch with a cache of its own."""

    def __init__(self, model: ServedModel, rows: list[Generation]) -> None:
        self._model = model
        self.rows = rows
        self._cache: Any = DynamicCache(config=model.causal.config)
        longest = max(len(row.prompt_ids) for row in rows)
        # Padding goes to the left, so that every next token stands in the same column.
        self._mask = torch.zeros((len(rows), longest), dtype=torch.long)
        self._next = torch.zeros((len(rows), longest), dtype=torch.long)
        for number, row in enumerate(rows):
            self._mask[number, longest - len(row.prompt_ids) :] = 1
            self._next[number, longest - len(row.prompt_ids) :] = torch.tensor(row.prompt_ids)

    @property
    def size(self) -> int:
        """Tokens that its cache may come to hold."""
        return len(self.rows) * max((row.size for row in self.rows), default=0)

    @torch.inference_mode()
    def step(self) -> None:
        """Give every row its next token, and drop the rows that are done."""
        self._drop_finished()
        if not self.rows:
            return
        device = self._model.device
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -self._next.shape[1] :]
        held = self._mask[:, -self._next.shape[1] :].bool()
        with self._model.steered([row.steering for row in self.rows], torch.where(held, positions, -1)):
            output = self._model.causal(
                input_ids=self._next.to(device),
                attention_mask=self._mask.to(device),
                position_ids=positions.to(device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits = output.logits[:, -1].float().cpu()
        chosen = []
        for row, scores in zip(self.rows, logits, strict=True):
            token = row.choose(scores)
            if row.logprobs is not None:
                logs = torch.log_softmax(scores, dim=-1)
                best = logs.topk(row.logprobs) if row.logprobs else None
                top = [] if best is None else list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
                row.scores.append((float(logs[token]), top))
            row.take(token, self._model.tokens.eos_ids)
            chosen.append(token)
            row.on_step()
        self._next = torch.tensor(chosen)[:, None]
        self._mask = torch.cat([self._mask, torch.ones((len(chosen), 1), dtype=torch.long)], dim=1)
        self._drop_finished()

    def _drop_finished(self) -> None:
        keep = [number for number, row in enumerate(self.rows) if row.finish is None and not row.cancelled]
        if len(keep) == len(self.rows):
            return
        self.rows = [self.rows[number] for number in keep]
        self._mask, self._next = self._mask[keep], self._next[keep]
        if keep and self._cache.get_seq_length():
            self._cache.batch_select_indices(torch.tensor(keep, device=self._model.device))
