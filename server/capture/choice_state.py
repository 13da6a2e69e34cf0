"""Generating: cohorts of requests that take one step after the other, so that none waits for a stranger to finish."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from server.capture.cache import ROOM, batch_cache, join_caches, joinable, places
from server.capture.edits import SequenceEdits
from server.capture.model import ServedModel
from server.capture.prompts import Decoder

log = logging.getLogger(__name__)

Logprob = tuple[float, list[tuple[int, float]]]
MORE_PADDING = 1.25  # how much larger two cohorts may become by being one


@dataclass(eq=False)
class ChoiceState:
    """One choice that is being generated.

    `on_step` is called when `finish` is set, and before, where the choice is `live`, after every token.
    """

    prompt_ids: list[int]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    decoder: Decoder
    on_step: Callable[[], None]
    ignore_eos: bool = False
    live: bool = True
    logprobs: int | None = None
    steering: SequenceEdits | None = None
    token_ids: list[int] = field(default_factory=list)
    scores: list[Logprob] = field(default_factory=list)
    finish: str | None = None
    cancelled: bool = False
    _generator: torch.Generator | None = None

    @property
    def size(self) -> int:
        """Tokens that it may come to hold in the cache."""
        return len(self.prompt_ids) + self.max_tokens

    @property
    def greedy(self) -> bool:
        """Whether the next token is always the likeliest."""
        return self.temperature < 1e-5

    def choose(self, logits: torch.Tensor) -> int:
        """The next token: the likeliest, or one drawn from the nucleus (Holtzman et al. 2020) with its own seed."""
        if self.greedy:
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
    """Requests that take their steps together; a padded batch with a cache of its own."""

    def __init__(self, model: ServedModel, rows: list[ChoiceState]) -> None:
        self._model = model
        self.rows = rows
        self._cache = batch_cache(model.causal.config)
        self._steered = model.steered_rows([row.steering for row in rows])
        longest = max(len(row.prompt_ids) for row in rows)
        # Padding goes to the left, so that every next token stands in the same column.
        self._mask = torch.zeros((len(rows), longest), dtype=torch.long)
        self._next = torch.zeros((len(rows), longest), dtype=torch.long)
        for number, row in enumerate(rows):
            self._mask[number, longest - len(row.prompt_ids) :] = 1
            self._next[number, longest - len(row.prompt_ids) :] = torch.tensor(row.prompt_ids)

    @property
    def width(self) -> int:
        """Tokens that a row may come to take in the cache, padding included."""
        return self._mask.shape[1] + max((row.max_tokens - len(row.token_ids) for row in self.rows), default=0)

    @property
    def size(self) -> int:
        """Tokens that there may come to be memory for in its cache."""
        return max(len(self.rows), places(self._cache)) * (self.width + ROOM)

    def takes(self, other: Cohort, most: int) -> bool:
        """Whether a step of both as one, of at most `most` rows, costs less than a step of each."""
        count = len(self.rows) + len(other.rows)
        apart = len(self.rows) * self.width + len(other.rows) * other.width
        fits = count <= most and count * max(self.width, other.width) <= MORE_PADDING * apart
        return fits and joinable(self._cache) and joinable(other._cache)

    def join(self, other: Cohort) -> None:
        """Take in the rows of another cohort, which has taken a step, as has this one."""
        masks = []
        lengths = []
        for cohort in (self, other):
            padding = int(cohort._mask.amax(0).argmax())  # columns in which no row has a token
            masks.append(cohort._mask[:, padding:])
            lengths.append(padding)
        join_caches(self._cache, other._cache, *lengths)
        longest = max(mask.shape[1] for mask in masks)
        self._mask = torch.cat([torch.nn.functional.pad(mask, (longest - mask.shape[1], 0)) for mask in masks])
        self._next = torch.cat([self._next, other._next])
        self.rows = self.rows + other.rows
        self._steered = self._model.steered_rows([row.steering for row in self.rows])

    @torch.inference_mode()
    def step(self) -> None:
        """Give every row its next token, and drop the rows that are done."""
        self._drop_finished()
        if not self.rows:
            return
        device = self._model.device
        positions = (self._mask.cumsum(1) - 1).clamp(min=0)[:, -self._next.shape[1] :]
        held = self._mask[:, -self._next.shape[1] :].bool()
        with self._model.steered(self._steered, torch.where(held, positions, -1)):
            output = self._model.causal(
                input_ids=self._next.to(device),
                attention_mask=self._mask.to(device),
                position_ids=positions.to(device),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        chosen = self._choose(output.logits[:, -1].float())
        for row, token in zip(self.rows, chosen, strict=True):
            if row.finish is None:
                row.take(token, self._model.tokens.eos_ids)
            if row.live or row.finish is not None:
                row.on_step()
        self._next = torch.tensor(chosen)[:, None]
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        self._drop_finished()

    def _choose(self, logits: torch.Tensor) -> list[int]:
        """The next token of every row, out of its logits (n_rows, vocabulary); a row without finite ones has failed."""
        highest, likeliest = logits.max(-1)
        chosen: list[int] = likeliest.tolist()
        for number, (row, finite) in enumerate(zip(self.rows, highest.isfinite().tolist(), strict=True)):
            if not finite:
                log.error("the logits of a sequence are not finite, which an edit of a high dose can do")
                row.finish = "error"
            elif not row.greedy:
                chosen[number] = row.choose(logits[number].cpu())
        scored = [number for number, row in enumerate(self.rows) if row.logprobs is not None]
        if scored:
            logs = torch.log_softmax(logits[scored], dim=-1)
            best = logs.topk(max(self.rows[number].logprobs or 0 for number in scored))
            ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            for number, own, (ids, values) in zip(scored, logs, ranked, strict=True):
                row = self.rows[number]
                top = list(zip(ids, values, strict=True))[: row.logprobs or 0]
                row.scores.append((float(own[chosen[number]]), top))
        return chosen

    def _drop_finished(self) -> None:
        keep = {number for number, row in enumerate(self.rows) if row.finish is None and not row.cancelled}
        if len(keep) == len(self.rows):
            return
        # The last ones take the places that are left, so that no other has to move in the cache.
        movers = [number for number in sorted(keep) if number >= len(keep)]
        order = [number if number in keep else movers.pop() for number in range(len(keep))]
        self.rows = [self.rows[number] for number in order]
        self._mask, self._next = self._mask[order], self._next[order]
        if order and self._cache.get_seq_length():
            self._cache.batch_select_indices(torch.tensor(order, device=self._model.device))
        self._steered = self._model.steered_rows([row.steering for row in self.rows])
