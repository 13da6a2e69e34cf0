"""The engine: one thread that owns the model and shares it among requests, by token budget."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from emoprobe.models.device_errors import is_out_of_memory, is_sticky
from server.capture.attention import ROOM, batch_cache, join_caches, joinable, places
from server.capture.edits import SequenceEdits
from server.capture.errors import ForwardError, NotFiniteError, OutOfMemoryError
from server.capture.model import Captured, ForwardInput, ServedModel
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
    error: ForwardError | None = None
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
        # Rows that run again have tokens already.
        longest = max(len(row.prompt_ids) + len(row.token_ids) for row in rows)
        # Padding goes to the left, so that every next token stands in the same column.
        self._mask = torch.zeros((len(rows), longest), dtype=torch.long)
        self._next = torch.zeros((len(rows), longest), dtype=torch.long)
        for number, row in enumerate(rows):
            ids = row.prompt_ids + row.token_ids
            self._mask[number, longest - len(ids) :] = 1
            self._next[number, longest - len(ids) :] = torch.tensor(ids)

    @property
    def width(self) -> int:
        """Tokens that a row may come to take in the cache, padding included."""
        return self._mask.shape[1] + max((row.max_tokens - len(row.token_ids) for row in self.rows), default=0)

    @property
    def size(self) -> int:
        """Tokens that there may come to be memory for in its cache."""
        return max(len(self.rows), places(self._cache)) * (self.width + ROOM)

    def takes(self, other: Cohort, most: int) -> bool:
        """Return whether a step of both as one, of at most `most` rows, costs less than a step of each."""
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

    def drop_cache(self) -> None:
        """Give the memory of the cache back; the cohort can take no further step."""
        self._cache = batch_cache(self._model.causal.config)

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
                row.finish, row.error = "error", NotFiniteError()
            elif not row.greedy:
                chosen[number] = row.choose(logits[number].cpu())
        scored = [number for number, row in enumerate(self.rows) if row.logprobs is not None]
        if scored:
            logs = torch.log_softmax(logits[scored], dim=-1)
            best = logs.topk(max(self.rows[number].logprobs or 0 for number in scored))
            ranked = zip(best.indices.tolist(), best.values.tolist(), strict=True)
            for number, scores, (ids, values) in zip(scored, logs, ranked, strict=True):
                row = self.rows[number]
                top = list(zip(ids, values, strict=True))[: row.logprobs or 0]
                row.scores.append((float(scores[chosen[number]]), top))
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
            # Indices on the CPU select from keys on any device.
            self._cache.batch_select_indices(torch.tensor(order))
        self._steered = self._model.steered_rows([row.steering for row in self.rows])


MAX_ROWS = 256
MAX_WEIGHTS = 1 << 26  # numbers that turn the tokens of a batch into means at positions
# On a CPU a batch gains nothing, and what does not fit its caches costs a tenth of the speed.
CPU_PASS_TOKENS = 1536


# The token budget that is measured: its bounds, and the share of the free memory that a pass may take.
LEAST_TOKENS, MOST_TOKENS, PASS_SHARE = 4096, 1 << 16, 0.5
PROBE = (8, 256)  # sequences of the pass that is measured, and tokens of each


class DeviceMemory:
    """Memory of the GPUs that hold a model, bytes."""

    def __init__(self, model: ServedModel) -> None:
        self._devices = {device for device in model.devices if device.type == "cuda"}

    def used_by(self, call: Callable[[], object]) -> int:
        """Return the most that a call takes on any GPU; 0 without one."""
        before = {}
        for device in self._devices:
            torch.cuda.reset_peak_memory_stats(device)
            before[device] = torch.cuda.memory_allocated(device)
        call()
        return max((torch.cuda.max_memory_allocated(each) - before[each] for each in self._devices), default=0)

    def free(self) -> int:
        """Return what is free on the fullest GPU, once unused blocks have been given back."""
        torch.cuda.empty_cache()
        return min((torch.cuda.mem_get_info(device)[0] for device in self._devices), default=0)


def measured_batch_tokens(model: ServedModel, memory: DeviceMemory | None = None) -> int:
    """Return the token budget of one pass that the memory of the GPUs allows; the smallest one on a CPU.

    A pass is measured that captures two hook points of every layer at every token, which takes more than most.

    Args:
        model: the model, which is alone on its GPUs.
        memory: of these GPUs.
    """
    memory = memory or DeviceMemory(model)
    count, length = PROBE
    points, layers = list(model.architecture.widths)[:2], list(range(model.architecture.n_layers))
    batch = [ForwardInput([1] * length, layers, points, None, model.dtype) for _ in range(count)]
    taken = memory.used_by(lambda: model.forward(batch))
    if not taken:
        return LEAST_TOKENS
    tokens = int(PASS_SHARE * memory.free() * count * length / taken)
    budget = min(max(tokens, LEAST_TOKENS), MOST_TOKENS)
    log.info("a pass takes %.0f kB a token: passes have at most %d tokens", taken / (count * length) / 1e3, budget)
    return budget


@dataclass(eq=False)  # two of equal tokens are still two
class Pass:
    """A sequence that waits for its forward pass. `bytes` is what its activations come to, in memory."""

    sequence: ForwardInput
    bytes: int
    result: Future[Captured] = field(default_factory=Future)


class BatchEngine:
    """Takes forward passes and generations from any thread and runs them batched.

    Args:
        model: the model.
        batch_tokens: tokens, padding included, in one forward pass; a longer sequence goes alone. On a CPU passes are
            smaller.
        memory: bytes that captured activations that are not yet written may hold, and as much for the caches.

    A batch for which the device has too little memory runs again in halves, and later batches are no larger than these.
    `failure` describes an error after which the device is of no use to this process; None while there is none.
    """

    def __init__(self, model: ServedModel, batch_tokens: int, memory: int) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        self.pass_tokens = min(batch_tokens, CPU_PASS_TOKENS) if model.device.type == "cpu" else batch_tokens
        self.memory = memory
        self.max_rows = MAX_ROWS
        self.failure: str | None = None
        self._passes: deque[Pass] = deque()
        self._generations: deque[ChoiceState] = deque()
        self._cohorts: list[Cohort] = []
        self._held = 0
        self._closed = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def submit_pass(self, item: Pass) -> None:
        """Queue a forward pass."""
        with self._wake:
            self._passes.append(item)
            self._wake.notify()

    def submit_generations(self, items: list[ChoiceState]) -> None:
        """Queue generations."""
        with self._wake:
            self._generations.extend(items)
            self._wake.notify()

    def release(self, size: int) -> None:
        """Say that captured activations of this many bytes have been written, or dropped."""
        with self._wake:
            self._held -= size
            self._wake.notify()

    def close(self) -> None:
        """End the thread after the step that it is in."""
        with self._wake:
            self._closed = True
            self._wake.notify()
        self._thread.join()

    @property
    def load(self) -> dict[str, int]:
        """The queued and running work."""
        return {
            "passes": len(self._passes),
            "waiting": len(self._generations),
            "running": sum(len(cohort.rows) for cohort in self._cohorts),
            "held_bytes": self._held,
        }

    def _run(self) -> None:
        while not self._closed:
            try:
                self._turn()
            except Exception:
                log.exception("the engine failed")
                self._drop_all()

    def _turn(self) -> None:
        """Wait for work and do one step of it."""
        with self._wake:
            while not self._closed and not (self._cohorts or self._generations or self._next_pass() is not None):
                self._wake.wait()
            if self._closed:
                return
            batch = self._take_batch()
            newcomers = self._take_newcomers()
        if batch:
            self._forward(batch)
        self._admit(newcomers)
        self._advance()

    def _drop_all(self) -> None:
        """Fail all that waits and runs: after an error outside of one request nobody knows whose it was."""
        with self._wake:
            passes, self._passes = self._passes, deque()
            generations, self._generations = self._generations, deque()
            cohorts, self._cohorts = self._cohorts, []
        for item in passes:
            if item.result.set_running_or_notify_cancel():
                item.result.set_exception(ForwardError())
        _fail(generations)
        for cohort in cohorts:
            _fail(cohort.rows)

    def _next_pass(self) -> Pass | None:
        """The pass that is next in line, if there is memory for it."""
        while self._passes and self._passes[0].result.cancelled():
            self._passes.popleft()
        if not self._passes or (self._held and self._held + self._passes[0].bytes > self.memory):
            return None
        return self._passes[0]

    def _take_batch(self) -> list[Pass]:
        """The pass that has waited longest, and those of its kind nearest to it in length, up to the token budget.

        Similar lengths keep the padding small: a batch of mixed lengths would waste up to half of the work. A batch of
        mixed kinds would hold for each sequence what any of them asks for, which no budget has counted.
        """
        first = self._next_pass()
        if first is None:
            return []
        length, kind = len(first.sequence.token_ids), first.sequence.kind
        others = [
            item
            for item in self._passes
            if item is not first and not item.result.cancelled() and item.sequence.kind == kind
        ]
        others.sort(key=lambda item: abs(len(item.sequence.token_ids) - length))
        batch, longest, size, rows = [first], length, first.bytes, first.sequence.rows
        most = len(first.sequence.spans or ())
        for item in others:
            reach = max(longest, len(item.sequence.token_ids))
            rows += item.sequence.rows
            most = max(most, len(item.sequence.spans or ()))
            if reach * rows > self.pass_tokens or rows > self.max_rows or reach * rows * most > MAX_WEIGHTS:
                break
            if self._held + size + item.bytes > self.memory:
                break
            batch.append(item)
            longest, size = reach, size + item.bytes
        chosen = set(map(id, batch))
        self._passes = deque(item for item in self._passes if id(item) not in chosen)
        self._held += size
        return batch

    def _take_newcomers(self) -> list[ChoiceState]:
        """Generations that start together: as many as the token budget of a pass and the caches' memory allow."""
        room = self.memory // max(1, self.model.cache_bytes_per_token) - sum(cohort.size for cohort in self._cohorts)
        rows: list[ChoiceState] = []
        longest = reach = 0
        while self._generations:
            item = self._generations[0]
            if item.cancelled:
                self._generations.popleft()
                continue
            longest, reach = max(longest, len(item.prompt_ids)), max(reach, item.size)
            count = len(rows) + 1
            alone = not rows and not self._cohorts
            fits = count * longest <= self.batch_tokens or not rows
            if not alone and (not fits or count * reach > room or count > self.max_rows):
                break
            rows.append(self._generations.popleft())
        return rows

    def _forward(self, batch: list[Pass]) -> None:
        batch, dropped = [item for item in batch if item.result.set_running_or_notify_cancel()], list(batch)
        for item in dropped:
            if item not in batch:
                self.release(item.bytes)
        if batch:
            self._run_batch(batch)

    def _run_batch(self, batch: list[Pass]) -> None:
        """Run passes; halve a batch that the device has too little memory for."""
        try:
            results = self.model.forward([item.sequence for item in batch])
        except Exception as error:
            failure = self.failed(error, "a forward pass failed")
        else:
            for item, captured in zip(batch, results, strict=True):
                item.result.set_result(captured)
            return
        # Here the error, which keeps the tensors of the failed pass alive, is gone.
        if isinstance(failure, OutOfMemoryError) and len(batch) > 1:
            longest = max(len(item.sequence.token_ids) for item in batch)
            rows = sum(item.sequence.rows for item in batch)
            self.pass_tokens = min(self.pass_tokens, max(longest, longest * rows // 2))
            log.warning("passes have at most %d tokens from now on", self.pass_tokens)
            for item in batch:
                if item.sequence.steering is not None:
                    item.sequence.steering.reset()
            for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
                self._run_batch(half)
            return
        for item in batch:
            self.release(item.bytes)
            item.result.set_exception(failure)

    def failed(self, error: Exception, message: str) -> ForwardError:
        """Log an error of the device or the model, and return what its requests fail with."""
        log.error(message, exc_info=error)
        if is_sticky(error):
            self.failure = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        if not is_out_of_memory(error):
            return ForwardError()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return OutOfMemoryError()

    def _admit(self, newcomers: list[ChoiceState]) -> None:
        if not newcomers:
            return
        try:
            self._cohorts.append(Cohort(self.model, newcomers))
        except Exception:
            log.exception("generations could not be started")
            _fail(newcomers)

    def _advance(self) -> None:
        """Give all that are being generated their next token."""
        cohorts, self._cohorts = self._cohorts, []
        for cohort in cohorts:
            self._cohorts += self._stepped(cohort)
        self._join()

    def _stepped(self, cohort: Cohort) -> list[Cohort]:
        """Take a step of a cohort; return it, or the halves that take its place."""
        try:
            cohort.step()
        except Exception as error:
            failure = self.failed(error, "a decoding step failed")
        else:
            return [cohort]
        return self._divided([cohort], failure)

    def _divided(self, cohorts: list[Cohort], failure: ForwardError) -> list[Cohort]:
        """Replace cohorts that ran out of memory by two halves without caches; fail those of any other error."""
        rows = [row for cohort in cohorts for row in cohort.rows]
        for cohort in cohorts:
            cohort.rows = []
            cohort.drop_cache()
        _fail([row for row in rows if row.finish is not None])  # whose logits were not finite
        rows = [row for row in rows if row.finish is None]
        if not isinstance(failure, OutOfMemoryError) or len(rows) < 2:
            _fail(rows, failure)
            return []
        self.max_rows = max(1, len(rows) // 2)
        log.warning("batches have at most %d sequences from now on", self.max_rows)
        for row in rows:
            if row.steering is not None:
                row.steering.reset()
        try:
            return [Cohort(self.model, half) for half in (rows[: len(rows) // 2], rows[len(rows) // 2 :])]
        except Exception as error:  # no memory for what the halves need either
            _fail(rows, self.failed(error, "a batch could not be divided"))
            return []

    def _join(self) -> None:
        """Make one of cohorts that were admitted apart: two steps read all of the weights twice."""
        joined: list[Cohort] = []
        for cohort in self._cohorts:
            if not cohort.rows:
                continue
            host = next((other for other in joined if other.takes(cohort, self.max_rows)), None)
            if host is None:
                joined.append(cohort)
                continue
            try:
                host.join(cohort)
            except Exception as error:
                failure = self.failed(error, "two cohorts could not be joined")
            else:
                continue
            joined.remove(host)
            joined += self._divided([host, cohort], failure)
        self._cohorts = joined


def _fail(rows: Iterable[ChoiceState], error: ForwardError | None = None) -> None:
    for row in rows:
        row.finish, row.error = "error", row.error or error
        try:
            row.on_step()
        except Exception:  # whoever waited has gone
            log.exception("a failed generation cannot be told")
