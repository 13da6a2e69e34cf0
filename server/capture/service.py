"""What a request comes to: prompts, generations, forward passes and activation folders, awaited together."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from emoprobe.config.science.capture import Capture
from emoprobe.models.architecture import HookPointError
from emoprobe.models.positions import PositionError, resolve
from emoprobe.results.activation_folder import Position, TokenSpans
from server.capture.engine import Engine, Pass
from server.capture.errors import BadRequestError, UnknownModelError
from server.capture.generation import Generation
from server.capture.model import Captured, ServedModel, Wanted
from server.capture.prompts import Decoder, Prompt, PromptError
from server.capture.schema import Ndif, Sampling
from server.capture.steering import LayerEdit, Steering, SteeringError, layer_edits
from server.capture.storage import OverflowedError, SaveDirError, Storage, Stored

if TYPE_CHECKING:
    from server.capture.pushing import Pusher

DEFAULTS = Ndif(
    layers="all",
    hook_points=list(Capture().hook_points),
    positions=list(Capture().positions),
    dtype=Capture().dtype,
)
WRITERS = 2


@dataclass(frozen=True)
class CapturePlan:
    """A checked wish for activations: where they go and what they are."""

    folder: Path
    push: bool
    request_id: str
    layers: list[int]
    hook_points: list[str]
    positions: Any
    dtype: str


class Service:
    """The model, its engine and its storage, as the routes use them."""

    def __init__(self, model: ServedModel, engine: Engine, storage: Storage, pusher: Pusher | None = None) -> None:
        self.model, self.engine, self.storage, self.pusher = model, engine, storage, pusher
        self.defaults = DEFAULTS
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="writer")

    def check_model(self, name: str | None) -> None:
        """Check the name in a request; null stands for the served model.

        Raises:
            UnknownModelError: it is another model's.
        """
        if name is not None and name != self.model.name:
            raise UnknownModelError(f"The model `{name}` does not exist; this server has `{self.model.name}`")

    def folder(self, save_dir: str) -> Path:
        """The activation folder that a client names.

        Raises:
            BadRequestError: it is none, or lies elsewhere.
        """
        try:
            return self.storage.resolve(save_dir)
        except SaveDirError as error:
            raise BadRequestError(str(error), "save_dir") from None

    def plan(self, ndif: Ndif | None) -> CapturePlan | None:
        """Check what a request's `ndif` wants captured, before anything is computed; None where it is nothing.

        Raises:
            BadRequestError: it asks for a layer, hook point or folder that cannot be had.
        """
        if ndif is None or not ndif.captures:
            return None
        wanted = ndif.over(self.defaults)
        if wanted.push and self.pusher is None:
            raise BadRequestError("ndif.push: this server pushes nowhere; start it with --push URL", "ndif")
        request_id = wanted.request_id or uuid.uuid4().hex
        try:
            return CapturePlan(
                folder=self.storage.resolve(wanted.save_dir if wanted.save_dir is not None else request_id),
                push=wanted.push,
                request_id=request_id,
                layers=self.model.architecture.layers(wanted.layers or "all"),
                hook_points=self.model.architecture.hook_points(wanted.hook_points or []),
                positions=wanted.positions,
                dtype=wanted.dtype or "float16",
            )
        except (HookPointError, SaveDirError) as error:
            raise BadRequestError(f"ndif: {error}", "ndif") from None

    def check_defaults(self, defaults: Ndif) -> None:
        """Check new defaults.

        Raises:
            BadRequestError: they name a layer or hook point that the model does not have.
        """
        try:
            self.model.architecture.layers(defaults.layers or "all")
            self.model.architecture.hook_points(defaults.hook_points or [])
        except HookPointError as error:
            raise BadRequestError(str(error)) from None

    def chat_prompt(self, messages: list[dict[str, Any]], template: dict[str, Any] | None, ndif: Ndif | None) -> Prompt:
        """The prompt of a chat request.

        Raises:
            BadRequestError: the chat template refuses it.
        """
        try:
            return self.model.tokens.chat(messages, template or {}, ndif.message_spans if ndif else None)
        except PromptError as error:
            raise BadRequestError(str(error), "messages") from None

    def text_prompt(self, prompt: str | list[int], ndif: Ndif | None) -> Prompt:
        """The prompt of a completion request: text, or token ids, which may hold a completion already.

        Raises:
            BadRequestError: a token id does not exist, or `ndif` contradicts the tokens.
        """
        try:
            ids = self.model.tokens.encode(prompt) if isinstance(prompt, str) else prompt
        except PromptError as error:
            raise BadRequestError(f"prompt: {error}", "prompt") from None
        if not ids:
            raise BadRequestError("prompt: holds no token", "prompt")
        if max(ids) >= self.model.vocabulary:
            raise BadRequestError(
                f"prompt: token id {max(ids)} does not exist (vocabulary: {self.model.vocabulary})", "prompt"
            )
        count = len(ids) if ndif is None or ndif.prompt_tokens is None else ndif.prompt_tokens
        if count > len(ids):
            raise BadRequestError(f"ndif.prompt_tokens = {count}: there are only {len(ids)} tokens", "ndif")
        if ndif is None or ndif.messages is None:
            return Prompt(ids, TokenSpans(response=(count, len(ids))))
        rendered = self.chat_prompt(ndif.messages, ndif.chat_template_kwargs, ndif)
        if rendered.token_ids != ids[:count]:
            raise BadRequestError(
                "ndif.messages: the chat template does not turn them into these prompt tokens", "ndif"
            )
        return Prompt(ids, rendered.spans.model_copy(update={"response": (count, len(ids))}))

    def generation(
        self,
        prompt: Prompt,
        request: Sampling,
        max_tokens: int | None,
        choice: int,
        logprobs: int | None,
        on_step: Callable[[], None],
        edits: tuple[LayerEdit, ...] = (),
    ) -> Generation:
        """One choice of a request, not yet submitted.

        Raises:
            BadRequestError: prompt and completion do not fit the model.
        """
        room = self.model.max_length - len(prompt.token_ids)
        if room < (max_tokens if max_tokens is not None else 1):
            raise BadRequestError(
                f"the model holds {self.model.max_length} tokens, but the prompt has {len(prompt.token_ids)} and "
                f"max_tokens asks for {max_tokens if max_tokens is not None else 'at least 1'} more",
                "max_tokens",
            )
        return Generation(
            prompt_ids=prompt.token_ids,
            max_tokens=room if max_tokens is None else max_tokens,
            temperature=1.0 if request.temperature is None else request.temperature,
            top_p=1.0 if request.top_p is None else request.top_p,
            seed=None if request.seed is None else (request.seed + choice) % 2**63,
            decoder=Decoder(self.model.tokens, request.stops),
            on_step=on_step,
            ignore_eos=bool(request.ignore_eos),
            live=bool(request.stream),
            logprobs=logprobs,
            steering=steering_of(edits, prompt),
        )

    def edits(self, ndif: Ndif | None) -> tuple[LayerEdit, ...]:
        """The edits that a request asks for.

        Raises:
            BadRequestError: one of them cannot be made.
        """
        try:
            return layer_edits(ndif.steering, self.storage.root, self.model.architecture) if ndif else ()
        except (HookPointError, SteeringError, OSError) as error:
            raise BadRequestError(f"ndif.steering: {error}", "ndif") from None

    async def score(self, prompt: Prompt, top: int, steering: Steering | None, divergences: int) -> Captured:
        """Log-probabilities of a prompt's own tokens, and how far its edits move the first predictions after it."""
        item = Pass(
            Wanted(prompt.token_ids, [], [], None, torch.float32, True, top, steering, divergences=divergences), 0
        )
        self.engine.submit_pass(item)
        captured: Captured = await _await(item.result)
        return captured

    async def capture(
        self, plan: CapturePlan, prompt: Prompt, completion: list[int], steering: Steering | None
    ) -> dict[str, Any]:
        """Capture and store the activations of prompt and completion; return the breadcrumb.

        Raises:
            BadRequestError: positions that the sequence does not have, more than memory can hold, or values that the
                stored type cannot.
            OSError: the folder cannot be written.
            ActivationError: it cannot be pushed.
        """
        ids = prompt.token_ids + completion
        start, end = prompt.spans.response
        spans = prompt.spans.model_copy(update={"response": (start, end + len(completion))})
        try:
            positions = resolve(plan.positions, spans)
        except PositionError as error:
            raise BadRequestError(f"ndif.positions: {error}", "ndif") from None
        dtype = getattr(torch, plan.dtype)
        weights = None if plan.positions == "all" else _weights(positions, len(ids))
        values = self.model.values_held(plan.hook_points) * len(plan.layers)
        # While a pass runs, every token may be held in the model's own type, and the chosen ones in the stored one.
        size = values * (len(ids) * self.model.dtype.itemsize if weights is None else 0)
        size += values * len(positions) * (dtype.itemsize + 4)
        if size > self.engine.memory:
            raise BadRequestError(
                f"ndif: this capture takes {size / 2**30:.1f} GiB, the server holds "
                f"{self.engine.memory / 2**30:.1f} GiB (--memory-gib); ask for fewer layers, hook points or positions",
                "ndif",
            )
        metadata = {
            "request_id": plan.request_id,
            "model": self.model.name,
            "model_dtype": str(self.model.dtype).removeprefix("torch."),
            "dtype": plan.dtype,
            "layers": plan.layers,
            "hook_points": plan.hook_points,
            "positions": "all" if plan.positions == "all" else [position.values() for position in positions],
            "token_ids": ids,
            "spans": spans.values(),
        }
        item = Pass(Wanted(ids, plan.layers, plan.hook_points, weights, dtype, steering=steering), size)
        stored: Future[Stored] = Future()

        def store(captured: Future[Captured]) -> None:
            if captured.cancelled():
                stored.cancel()
                return
            self._writers.submit(self._store, plan, metadata, captured, stored, size)

        item.result.add_done_callback(store)
        self.engine.submit_pass(item)
        try:
            found = await _await(stored)
        except asyncio.CancelledError:
            item.result.cancel()
            raise
        except OverflowedError as error:
            raise BadRequestError(f"ndif.dtype: {error}", "ndif") from None
        place = await _await(self.pusher.push(plan.folder)) if plan.push and self.pusher is not None else {}
        return {
            **place,
            "save_dir": found.save_dir,
            "shapes": found.shapes,
            "dtype": plan.dtype,
            "sha256": found.sha256,
            "bytes": found.bytes,
        }

    def _store(
        self, plan: CapturePlan, metadata: dict[str, Any], captured: Future[Captured], stored: Future[Stored], size: int
    ) -> None:
        failure = captured.exception()
        try:
            if not stored.set_running_or_notify_cancel():
                return
            if failure is not None:  # the engine has given the memory back itself
                stored.set_exception(failure)
                return
            stored.set_result(self.storage.write(plan.folder, captured.result().activations, metadata))
        except Exception as error:
            stored.set_exception(error)
        finally:
            if failure is None:
                self.engine.release(size)


def steering_of(edits: tuple[LayerEdit, ...], prompt: Prompt) -> Steering | None:
    """The edits of a sequence that begins with this prompt."""
    return Steering(edits, prompt.spans.response[0]) if edits else None


async def _await(future: Future[Any]) -> Any:
    """Await a future of another thread; cancelling the awaiting task cancels it."""
    return await asyncio.wrap_future(future)


def _weights(positions: list[Position], length: int) -> torch.Tensor:
    """(n_positions, length): rows that average over each position's span."""
    weights = torch.zeros((len(positions), length))
    for row, position in enumerate(positions):
        start, end = position.span
        weights[row, start:end] = 1.0 / (end - start)
    return weights
