"""A completion as a stream of server-sent events: what is new of each choice, as soon as it is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from server.capture.answers import (
    DONE,
    chat_logprobs,
    completion_choice,
    completion_logprobs,
    envelope,
    error_body,
    event,
)
from server.capture.choice_state import ChoiceState
from server.capture.completions import Work
from server.capture.errors import TOLD, told
from server.capture.prompts import Decoder

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
    except TOLD as error:
        yield event(told(error)[1])
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
        """What stands before any generated token: the role, or the prompt where it is echoed."""
        indices = range(len(self._work.rows))
        if self._work.kind == "chat":
            return [_chat_chunk(index, {"role": "assistant", "content": ""}, None, None) for index in indices]
        return [self._echoed(index) for index in indices] if self._work.echo else []

    def news(self) -> Iterator[dict[str, Any]]:
        """What is new of each choice."""
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
