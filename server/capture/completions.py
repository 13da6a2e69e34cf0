"""The two completion routes: generate, score and capture, and answer at once or as a stream."""

from __future__ import annotations

import asyncio
import json
import math
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from server.capture.activations import CaptureRequest
from server.capture.edits import LayerEdit, SequenceEdits
from server.capture.engine import ChoiceState, Logprob
from server.capture.errors import (
    REQUEST_ERRORS,
    BadRequestError,
    ForwardError,
    NotFiniteError,
    error_body,
    error_response,
)
from server.capture.model import Captured, TokenScores
from server.capture.prompts import Decoder, PromptTokenizer, TokenizedPrompt
from server.capture.schema import ChatRequest, CompletionRequest
from server.capture.service import LOGPROB, POSITION, TOKEN, Service, steering_of

MAX_ROWS = 1024
DEFAULT_COMPLETION_TOKENS = 16  # what the OpenAI API gives a text completion that asks for nothing


@dataclass(eq=False)
class Work:
    """One request under way: its prompts, and for each the choices that are generated."""

    service: Service
    kind: Literal["chat", "text"]
    request: ChatRequest | CompletionRequest
    plan: CaptureRequest | None
    prompts: list[TokenizedPrompt]
    rows: list[ChoiceState]
    identifier: str
    stepped: asyncio.Event
    edits: tuple[LayerEdit, ...] = ()
    scored: list[Captured] = field(default_factory=list)
    release: Callable[[], object] = lambda: None
    """Gives back the memory that is held for it, once its answer is sent."""

    @classmethod
    async def chat(cls, service: Service, request: ChatRequest) -> Work:
        """Check a chat request; tokenizing it holds up no other.

        Raises:
            UnknownModelError, BadRequestError: it cannot be served.
        """
        service.check_model(request.model)
        limit = request.max_completion_tokens if request.max_completion_tokens is not None else request.max_tokens
        messages = [message.plain() for message in request.messages]
        template, continued = request.chat_template_kwargs, bool(request.continue_final_message)
        prompt = await asyncio.to_thread(service.chat_prompt, messages, template, request.ndif, continued=continued)
        logprobs = (request.top_logprobs or 0) if request.logprobs else None
        return await cls._make(service, "chat", request, [prompt], limit, logprobs)

    @classmethod
    async def text(cls, service: Service, request: CompletionRequest) -> Work:
        """Check a text completion request; tokenizing it holds up no other.

        Raises:
            UnknownModelError, BadRequestError: it cannot be served.
        """
        service.check_model(request.model)
        limit = DEFAULT_COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens

        def tokenize() -> list[TokenizedPrompt]:
            return [service.text_prompt(prompt, request.ndif) for prompt in request.prompts]

        prompts = await asyncio.to_thread(tokenize)
        return await cls._make(service, "text", request, prompts, limit, request.logprobs)

    @classmethod
    async def _make(
        cls,
        service: Service,
        kind: Literal["chat", "text"],
        request: ChatRequest | CompletionRequest,
        prompts: list[TokenizedPrompt],
        limit: int | None,
        logprobs: int | None,
    ) -> Work:
        count = request.n or 1
        if len(prompts) * count > MAX_ROWS:
            raise BadRequestError(
                f"{len(prompts)} prompts with n = {count}: at most {MAX_ROWS} choices are served", "n"
            )
        plan = service.captures.plan(request.ndif)
        if plan is not None and (len(prompts) > 1 or count > 1):
            raise BadRequestError("ndif: activations are captured for one prompt with n = 1", "ndif")
        size = _bytes_held(service, request, plan, prompts, limit, logprobs)
        made = cls(service, kind, request, plan, prompts, [], "", asyncio.Event())
        made.release = service.budget.hold(made, size)
        # Directions are read from files.
        edits = await asyncio.to_thread(service.edits, request.ndif)
        stepped, loop = made.stepped, asyncio.get_running_loop()

        def on_step() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(stepped.set)

        made.edits = edits
        made.rows = [
            service.generation(prompt, request, limit, choice, logprobs, on_step, edits)
            for prompt in prompts
            for choice in range(count)
        ]
        name = request.ndif.request_id if request.ndif is not None and request.ndif.request_id else uuid.uuid4().hex
        name = plan.request_id if plan is not None else name
        made.identifier = f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{name}"
        return made

    def number(self, index: int) -> int:
        """Return the prompt of a choice."""
        return index // (self.request.n or 1)

    def scores(self, index: int) -> TokenScores | None:
        """The scores of a choice's prompt, where it was scored."""
        return self.scored[self.number(index)].scores if self.scored else None

    @property
    def echo(self) -> bool:
        """Whether the prompt stands before the completion."""
        return isinstance(self.request, CompletionRequest) and bool(self.request.echo)

    def start(self) -> None:
        """Submit what is to be generated."""
        for row in self.rows:
            if row.max_tokens == 0:
                row.finish = "length"
        self.service.engine.submit_generations([row for row in self.rows if row.finish is None])

    def cancel(self) -> None:
        """Give the places of this request to others."""
        for row in self.rows:
            row.cancelled = True

    async def step(self) -> bool:
        """Wait for news of any choice; False when all are done.

        Raises:
            ModelError: the engine failed.
        """
        if any(row.finish is None for row in self.rows):
            await self.stepped.wait()
            self.stepped.clear()
        for row in self.rows:
            if row.finish == "error":
                raise self._not_finite() if isinstance(row.error, NotFiniteError) else row.error or ForwardError()
        return any(row.finish is None for row in self.rows)

    def _not_finite(self) -> Exception:
        """Return the error of predictions that are not finite, which an edit of a high dose can do."""
        if not self.edits:
            return NotFiniteError()
        return BadRequestError("ndif.steering: predictions are not finite under these edits; lower the dose", "ndif")

    async def score_prompts(self) -> None:
        """Scores of the prompts, where they are echoed with log-probabilities."""
        top = self.rows[0].logprobs
        if not self.echo or top is None:
            return
        steering = [steering_of(self.edits, prompt) for prompt in self.prompts]
        kl = (self.request.ndif.kl or 0) if self.request.ndif is not None else 0
        scoring = (
            self.service.score(prompt, top, edits, kl) for prompt, edits in zip(self.prompts, steering, strict=True)
        )
        self.scored = list(await asyncio.gather(*scoring))
        if not all(math.isfinite(value) for each in self.scored if each.scores for value in each.scores.token):
            raise self._not_finite()
        for index, row in enumerate(self.rows):
            self._count(row, steering[self.number(index)])

    async def breadcrumb(self) -> dict[str, Any] | None:
        """Capture what was asked for; what was done, and where it lies."""
        if self.request.ndif is None:
            return None
        crumb: dict[str, Any] = {"request_id": self.identifier.partition("-")[2]}
        if self.plan is not None:
            steering = steering_of(self.edits, self.prompts[0])
            crumb |= await self.service.captures.make(self.plan, self.prompts[0], self.rows[0].token_ids, steering)
            self._count(self.rows[0], steering)
        if "steering" in self.request.ndif.model_fields_set:
            counts = [row.steering.tokens for row in self.rows if row.steering is not None]
            crumb["steering"] = [
                edit.model_dump(exclude={"values", "rows", "lengths"}) | {"tokens": [count[number] for count in counts]}
                for number, edit in enumerate(self.request.ndif.steering)
            ]
        if self.request.ndif.kl is not None:
            crumb |= {"kl": self.scored[0].divergences, "unedited": self.scored[0].unedited}
        return crumb

    @staticmethod
    def _count(row: ChoiceState, steering: SequenceEdits | None) -> None:
        """The edited tokens of a choice are those of its generation, or of its prompt where nothing is generated."""
        if row.max_tokens == 0:
            row.steering = steering

    def usage(self) -> dict[str, int]:
        """Token counts of all prompts and choices."""
        return usage(
            sum(len(prompt.token_ids) for prompt in self.prompts), sum(len(row.token_ids) for row in self.rows)
        )

    def choices(self) -> list[dict[str, Any]]:
        """All choices, complete."""
        tokens, with_ids = self.service.model.tokens, bool(self.request.return_token_ids)
        if self.kind == "chat":
            return [chat_choice(index, row, tokens, token_ids=with_ids) for index, row in enumerate(self.rows)]
        return [
            completion_choice(
                index,
                row,
                self.prompts[self.number(index)],
                tokens,
                self.scores(index),
                echo=self.echo,
                token_ids=with_ids,
            )
            for index, row in enumerate(self.rows)
        ]

    async def answer(self) -> dict[str, Any]:
        """The whole answer.

        Raises:
            BadRequestError, ModelError: there is none.
        """
        self.start()
        try:
            await self.score_prompts()
            while await self.step():
                pass
            crumb = await self.breadcrumb()
        finally:
            self.cancel()
        kind = "chat.completion" if self.kind == "chat" else "text_completion"
        response = envelope(self.identifier, kind, self.service.model.name)
        response |= {"choices": self.choices(), "usage": self.usage()}
        if self.kind == "chat" and self.request.return_token_ids:
            response["prompt_token_ids"] = self.prompts[0].token_ids
        return response | ({"ndif": crumb} if crumb is not None else {})


def _bytes_held(
    service: Service,
    request: ChatRequest | CompletionRequest,
    plan: CaptureRequest | None,
    prompts: list[TokenizedPrompt],
    limit: int | None,
    logprobs: int | None,
) -> int:
    """Bytes that a request may come to hold beside tensors in passes and caches."""
    model, ndif = service.model, request.ndif
    given = sum(len(prompt.token_ids) for prompt in prompts)
    room = sum(max(0, model.max_length - len(prompt.token_ids)) for prompt in prompts)
    made = (room if limit is None else min(room, limit * len(prompts))) * (request.n or 1)
    scored = made + (given if isinstance(request, CompletionRequest) and request.echo else 0)
    size = TOKEN * (given + made) + (0 if logprobs is None else LOGPROB * (1 + logprobs) * scored)
    if plan is not None:
        size += POSITION * (given + made if plan.positions == "all" else len(plan.positions))
    for edit in ndif.steering if ndif is not None else ():
        layers = model.architecture.n_layers if edit.layers == "all" else len(edit.layers)
        size += 4 * model.architecture.d_model * layers
    return size


def event(value: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


DONE = "data: [DONE]\n\n"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Token counts."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def envelope(identifier: str, kind: str, model: str) -> dict[str, Any]:
    """Return the fields that every object and chunk begins with."""
    return {"id": identifier, "object": kind, "created": int(time.time()), "model": model}


def chat_choice(index: int, row: ChoiceState, tokens: PromptTokenizer, *, token_ids: bool) -> dict[str, Any]:
    """One choice of a chat completion."""
    choice: dict[str, Any] = {
        "index": index,
        "message": {"role": "assistant", "content": row.decoder.text, "refusal": None},
        "logprobs": None if row.logprobs is None else {"content": chat_logprobs(row, tokens, 0)},
        "finish_reason": row.finish,
    }
    return choice | ({"token_ids": row.token_ids} if token_ids else {})


def chat_logprobs(row: ChoiceState, tokens: PromptTokenizer, begin: int) -> list[dict[str, Any]]:
    """Log-probabilities of generated tokens from `begin` on, as chat completions have them."""

    def entry(token: int, value: float) -> dict[str, Any]:
        text = tokens.decode([token], special=True)
        return {"token": text, "logprob": value, "bytes": list(text.encode())}

    return [
        {**entry(token, value), "top_logprobs": [entry(*best) for best in top]}
        for token, (value, top) in zip(row.token_ids[begin:], row.scores[begin:], strict=True)
    ]


def completion_choice(
    index: int,
    row: ChoiceState,
    prompt: TokenizedPrompt,
    tokens: PromptTokenizer,
    scores: TokenScores | None,
    *,
    echo: bool,
    token_ids: bool,
) -> dict[str, Any]:
    """One choice of a text completion; with `echo`, the prompt stands before it."""
    ahead = tokens.decode(prompt.token_ids, special=True) if echo else ""
    logprobs = None
    if row.logprobs is not None:
        ids, values = list(row.token_ids), [*row.scores]
        known: list[Logprob | None] = [*values]
        if echo and scores is not None:
            tops = scores.top or [[]] * len(scores.token)
            # Nothing stands before the first token, so it has no probability.
            known = [None, *zip(scores.token, tops, strict=True), *values]
            ids = prompt.token_ids + ids
        logprobs = completion_logprobs(ids, known, tokens, 0)
    choice: dict[str, Any] = {
        "index": index,
        "text": ahead + row.decoder.text,
        "logprobs": logprobs,
        "finish_reason": row.finish or "length",
    }
    return choice | ({"token_ids": row.token_ids, "prompt_token_ids": prompt.token_ids} if token_ids else {})


def completion_logprobs(
    ids: list[int], known: list[Logprob | None], tokens: PromptTokenizer, offset: int
) -> dict[str, Any]:
    """Log-probabilities as text completions have them; `offset` is where the first token's text begins."""
    texts = [tokens.decode([token], special=True) for token in ids]
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [None if entry is None else entry[0] for entry in known],
        "top_logprobs": [
            None if entry is None else {tokens.decode([token], special=True): value for token, value in entry[1]}
            for entry in known
        ],
        "text_offset": offsets,
    }


T = TypeVar("T")


async def events(work: Work, timeout: float) -> AsyncIterator[str]:
    """The answer to a request, within `timeout` seconds; an error in mid-stream is an event, too."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + timeout

    async def in_time(step: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wait_for(step, max(0.0, deadline - clock()))

    kind = "chat.completion.chunk" if work.kind == "chat" else "text_completion"
    head = envelope(work.identifier, kind, work.service.model.name)
    chunks = _Chunks(work)
    work.start()
    try:
        await in_time(work.score_prompts())
        for choice in chunks.openings():
            yield event(head | {"choices": [choice]})
        more = True
        while more:
            more = await in_time(work.step())
            for choice in chunks.news():
                yield event(head | {"choices": [choice]})
        crumb = await in_time(work.breadcrumb())
        if crumb is not None:
            yield event(head | {"choices": [], "ndif": crumb})
        if work.request.stream_options is not None and work.request.stream_options.include_usage:
            yield event(head | {"choices": [], "usage": work.usage()})
    except TimeoutError:
        yield event(error_body(f"not done within {timeout:g} s", 408))
    except REQUEST_ERRORS as error:
        yield event(error_response(error)[1])
    finally:
        work.cancel()
        work.release()
    yield DONE


class _Chunks:
    """The choices of a request in pieces; it knows how many tokens of each have been told, and which are complete."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._tokens = work.service.model.tokens
        self._told, self._closed = [0] * len(work.rows), [False] * len(work.rows)

    def openings(self) -> list[dict[str, Any]]:
        """Return what precedes generated tokens: the role, or the prompt where it is echoed."""
        indices = range(len(self._work.rows))
        if self._work.kind == "chat":
            return [_chat_chunk(index, {"role": "assistant", "content": ""}, None, None) for index in indices]
        return [self._echoed(index) for index in indices] if self._work.echo else []

    def news(self) -> Iterator[dict[str, Any]]:
        """Yield the new text of each choice."""
        for index, row in enumerate(self._work.rows):
            if not self._closed[index] and (chunk := self._chunk(index, row)) is not None:
                yield chunk

    def _chunk(self, index: int, row: ChoiceState) -> dict[str, Any] | None:
        # The engine's thread goes on meanwhile: look at `finish` first, then at what is there.
        finish = row.finish
        count = len(row.token_ids) if row.logprobs is None else min(len(row.token_ids), len(row.scores))
        text = row.decoder.delta(final=finish is not None)
        if not text and finish is None:
            return None
        self._closed[index] = finish is not None
        begin, self._told[index] = self._told[index], count
        ids = row.token_ids[begin:count]
        extra = {"token_ids": ids} if self._work.request.return_token_ids else {}
        if self._work.kind == "chat":
            content = None if row.logprobs is None else chat_logprobs(row, self._tokens, begin)[: count - begin]
            scores = None if content is None else {"content": content}
            return _chat_chunk(index, {"content": text}, scores, finish) | extra
        logprobs = None
        if row.logprobs is not None:
            logprobs = completion_logprobs(ids, list(row.scores[begin:count]), self._tokens, 0)
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish} | extra

    def _echoed(self, index: int) -> dict[str, Any]:
        work, tokens = self._work, self._tokens
        nothing = replace(work.rows[index], decoder=Decoder(tokens, []), token_ids=[], scores=[])
        prompt = work.prompts[work.number(index)]
        choice = completion_choice(index, nothing, prompt, tokens, work.scores(index), echo=True, token_ids=False)
        return choice | {"finish_reason": None}


def _chat_chunk(index: int, delta: dict[str, Any], logprobs: Any, finish: str | None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
