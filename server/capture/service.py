"""Services of the model to the routes: prompts, generations, scores, edits, and the memory they take."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from emoprobe.conversations.rendering import PromptError
from emoprobe.models.architecture import HookPointError
from emoprobe.results.activation_folder import TokenSpans
from server.capture.activations import ActivationWriter, Captures
from server.capture.edits import EditError, LayerEdit, SequenceEdits, layer_edits
from server.capture.engine import BatchEngine, ChoiceState, Pass
from server.capture.errors import BadRequestError, BusyError, UnknownModelError
from server.capture.model import Captured, ForwardInput, ServedModel
from server.capture.prompts import Decoder, TokenizedPrompt
from server.capture.schema import Ndif, Sampling

if TYPE_CHECKING:
    from server.capture.activations import Pusher

# Bytes of Python objects and of their JSON, measured, rounded up.
TOKEN = 64  # a token id, its text
LOGPROB = 700  # a token with its log-probability, text and bytes
POSITION = 2048  # a position, its span, and its entry in the metadata


class Budget:
    """Bytes that all requests together may hold.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._held = 0
        self._lock = threading.Lock()

    def hold(self, holder: object, size: int) -> Callable[[], object]:
        """Hold memory for an object, until what is returned is called, or the object is gone.

        Raises:
            BadRequestError: there is never so much.
            BusyError: there is not so much now.
        """
        if size > self.size:
            raise BadRequestError(
                f"this request may come to hold {size / 2**30:.1f} GiB, the server holds {self.size / 2**30:.1f} GiB "
                "(--memory-gib); ask for fewer choices, prompts, tokens, log-probabilities, positions or edits"
            )
        with self._lock:
            if self._held + size > self.size:
                raise BusyError()
            self._held += size
        return weakref.finalize(holder, self._release, size)

    def _release(self, size: int) -> None:
        with self._lock:
            self._held -= size


class Service:
    """The model, its engine and what it captures, as the routes use them."""

    def __init__(
        self, model: ServedModel, engine: BatchEngine, storage: ActivationWriter, pusher: Pusher | None = None
    ) -> None:
        self.model, self.engine, self.storage = model, engine, storage
        self.budget = Budget(engine.memory)
        self.captures = Captures(model, engine, storage, pusher)

    def check_model(self, name: str | None) -> None:
        """Check the name in a request; null stands for the served model.

        Raises:
            UnknownModelError: it is another model's.
        """
        if name is not None and name != self.model.name:
            raise UnknownModelError(f"The model `{name}` does not exist; this server has `{self.model.name}`")

    def chat_prompt(
        self,
        messages: list[dict[str, Any]],
        template: dict[str, Any] | None,
        ndif: Ndif | None,
        *,
        continued: bool = False,
    ) -> TokenizedPrompt:
        """The prompt of a chat request; `continued`: its last message is the beginning of the answer.

        Raises:
            BadRequestError: the chat template refuses it, or it has a token that the model lacks.
        """
        try:
            marks = ndif.message_spans.model_dump() if ndif is not None and ndif.message_spans is not None else None
            date = None if ndif is None else ndif.date
            prompt = self.model.tokens.chat(messages, template or {}, marks, date, continued=continued)
        except PromptError as error:
            raise BadRequestError(str(error), "messages") from None
        self._check_tokens(prompt.token_ids, "messages")
        return prompt

    def text_prompt(self, prompt: str | list[int], ndif: Ndif | None) -> TokenizedPrompt:
        """The prompt of a completion request: text, or token ids, which may hold a completion already.

        Raises:
            BadRequestError: a token id does not exist, or `ndif` contradicts the tokens.
        """
        try:
            ids = self.model.tokens.encode(prompt) if isinstance(prompt, str) else prompt
        except PromptError as error:
            raise BadRequestError(f"prompt: {error}", "prompt") from None
        self._check_tokens(ids, "prompt")
        count = len(ids) if ndif is None or ndif.prompt_tokens is None else ndif.prompt_tokens
        if count > len(ids):
            raise BadRequestError(f"ndif.prompt_tokens = {count}: there are only {len(ids)} tokens", "ndif")
        turns = None if ndif is None else ndif.turns
        for number, span in (turns or {}).items():
            if span is not None and not 0 < span[0] < span[1] <= len(ids):
                raise BadRequestError(
                    f"ndif.turns.{number} = {list(span)} is no span of the {len(ids)} tokens after the first", "ndif"
                )
        if ndif is None or ndif.messages is None:
            spans = {} if ndif is None else ndif.token_spans or {}
            for name, span in spans.items():
                first, end = (count, len(ids)) if name == "thought" else (0, count)
                if span is not None and not first <= span[0] < span[1] <= end:
                    part = "after the prompt" if name == "thought" else "of the prompt"
                    raise BadRequestError(
                        f"ndif.token_spans.{name} = {list(span)} is no span of the {end - first} tokens {part}", "ndif"
                    )
            return TokenizedPrompt(ids, TokenSpans(**spans, turns=turns, response=(count, len(ids))))
        messages = [message.plain() for message in ndif.messages]
        prefilled = bool(messages) and messages[-1].get("role") == "assistant"
        for continued in (False, True)[: 1 + prefilled]:
            rendered = self.chat_prompt(messages, ndif.chat_template_kwargs, ndif, continued=continued)
            if rendered.token_ids == ids[:count]:
                break
        else:
            raise BadRequestError(
                "ndif.messages: the chat template does not turn them into these prompt tokens; send ndif.token_spans "
                "in place of messages, or the ndif.date of a template that writes the date",
                "ndif",
            )
        spans_here = {"response": (count, len(ids)), "turns": turns}
        return TokenizedPrompt(ids, rendered.spans.model_copy(update=spans_here))

    def _check_tokens(self, ids: list[int], field: str) -> None:
        """Check that a prompt has tokens, and the model's embedding a row for each of them.

        Raises:
            BadRequestError: it has none, or one that the model lacks.
        """
        if not ids:
            raise BadRequestError(f"{field}: holds no token", field)
        if max(ids) >= self.model.vocabulary:
            message = f"token id {max(ids)} does not exist, the model's embedding has {self.model.vocabulary} rows"
            text = self.model.tokens.name(max(ids))
            if text is not None:
                message += f"; the tokenizer has {text!r} there: leave it out, or resize the model's embedding"
            raise BadRequestError(f"{field}: {message}", field)

    def generation(
        self,
        prompt: TokenizedPrompt,
        request: Sampling,
        max_tokens: int | None,
        choice: int,
        logprobs: int | None,
        on_step: Callable[[], None],
        edits: tuple[LayerEdit, ...] = (),
    ) -> ChoiceState:
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
        return ChoiceState(
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
        except (HookPointError, EditError, OSError) as error:
            raise BadRequestError(f"ndif.steering: {error}", "ndif") from None

    async def score(
        self, prompt: TokenizedPrompt, top: int, steering: SequenceEdits | None, divergences: int
    ) -> Captured:
        """Log-probabilities of a prompt's own tokens, and how far its edits move the first predictions after it."""
        item = Pass(
            ForwardInput(prompt.token_ids, [], [], None, torch.float32, True, top, steering, divergences=divergences), 0
        )
        self.engine.submit_pass(item)
        captured: Captured = await asyncio.wrap_future(item.result)
        return captured


def steering_of(edits: tuple[LayerEdit, ...], prompt: TokenizedPrompt) -> SequenceEdits | None:
    """The edits of a sequence that begins with this prompt."""
    return SequenceEdits(edits, prompt.spans.response[0]) if edits else None
