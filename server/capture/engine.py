"""The engine: one thread that owns the model and shares it out among requests, by token budget."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from server.capture.choice_state import ChoiceState, Cohort
from server.capture.model import Captured, ForwardInput, ServedModel

log = logging.getLogger(__name__)

MAX_ROWS = 256
MAX_WEIGHTS = 1 << 26  # numbers that turn the tokens of a batch into means at positions
# On a CPU a batch gains nothing, and what does not fit its caches costs a tenth of the speed.
CPU_PASS_TOKENS = 1536


class ForwardError(RuntimeError):
    """The model failed on a request."""

    def __init__(self) -> None:
        super().__init__("the model failed on this request; see the server's log")


@dataclass(eq=False)  # two of equal tokens are still two
class Pass:
    """A sequence that waits for its forward pass. `bytes` is what its activations come to, in memory."""

    wanted: ForwardInput
    bytes: int
    result: Future[Captured] = field(default_factory=Future)


class BatchEngine:
    """Takes forward passes and generations from any thread and runs them batched.

    Args:
        model: the model.
        batch_tokens: tokens, padding included, in one forward pass; a longer sequence goes alone. On a CPU passes are
            smaller.
        memory: bytes that captured activations that are not yet written may hold, and as much for the caches.
    """

    def __init__(self, model: ServedModel, batch_tokens: int, memory: int) -> None:
        self.model = model
        self.batch_tokens = batch_tokens
        self.pass_tokens = min(batch_tokens, CPU_PASS_TOKENS) if model.device.type == "cpu" else batch_tokens
        self.memory = memory
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
        """What waits and what runs."""
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
        length, kind = len(first.wanted.token_ids), first.wanted.kind
        others = [
            item
            for item in self._passes
            if item is not first and not item.result.cancelled() and item.wanted.kind == kind
        ]
        others.sort(key=lambda item: abs(len(item.wanted.token_ids) - length))
        batch, longest, size, rows = [first], length, first.bytes, first.wanted.rows
        most = len(first.wanted.spans or ())
        for item in others:
            reach = max(longest, len(item.wanted.token_ids))
            rows += item.wanted.rows
            most = max(most, len(item.wanted.spans or ()))
            if reach * rows > self.pass_tokens or rows > MAX_ROWS or reach * rows * most > MAX_WEIGHTS:
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
            if not alone and (not fits or count * reach > room or count > MAX_ROWS):
                break
            rows.append(self._generations.popleft())
        return rows

    def _forward(self, batch: list[Pass]) -> None:
        batch, dropped = [item for item in batch if item.result.set_running_or_notify_cancel()], list(batch)
        for item in dropped:
            if item not in batch:
                self.release(item.bytes)
        if not batch:
            return
        try:
            results = self.model.forward([item.wanted for item in batch])
        except Exception:
            log.exception("a forward pass failed")
            for item in batch:
                self.release(item.bytes)
                item.result.set_exception(ForwardError())
            return
        for item, captured in zip(batch, results, strict=True):
            item.result.set_result(captured)

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
        for cohort in self._cohorts:
            self._step(cohort)
        self._join()

    def _step(self, cohort: Cohort) -> None:
        try:
            cohort.step()
        except Exception:
            log.exception("a decoding step failed")
            _fail(cohort.rows)
            cohort.rows = []

    def _join(self) -> None:
        """Make one of cohorts that were admitted apart: two steps read all of the weights twice."""
        joined: list[Cohort] = []
        for cohort in self._cohorts:
            if not cohort.rows:
                continue
            host = next((other for other in joined if other.takes(cohort, MAX_ROWS)), None)
            if host is None:
                joined.append(cohort)
                continue
            try:
                host.join(cohort)
            except Exception:
                log.exception("two cohorts could not be joined")
                _fail([*cohort.rows, *host.rows])
                cohort.rows = []
                joined.remove(host)
        self._cohorts = joined


def _fail(rows: Iterable[ChoiceState]) -> None:
    for row in rows:
        row.finish = "error"
        try:
            row.on_step()
        except Exception:  # whoever waited has gone
            log.exception("a failed generation cannot be told")
