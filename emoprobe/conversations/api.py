"""Conversations with an OpenAI-compatible API: messages in, text out, and what a request may cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from emoprobe.config.execution.workers import Price
from emoprobe.config.experiment import Config
from emoprobe.conversations.kinds import NextTurn
from emoprobe.conversations.requests import chat_request, conversation_spans, turn_request
from emoprobe.conversations.responses import Delivery, ResponseError, graded, recorded_outcome, turn_fields
from emoprobe.conversations.samples import draw_id
from emoprobe.conversations.variants import VariantError
from emoprobe.results.trajectory import (
    MESSAGE_FIELDS,
    AgentState,
    Attempt,
    Hashes,
    Message,
    Sample,
    Timing,
    Trajectory,
    Usage,
)
from emoprobe.text import half_surrogate

PATH = "/chat/completions"
# A tokenizer makes at most one token of each byte. A chat template adds roles and markers, and some an own preamble.
MESSAGE_TOKENS, FRAME_TOKENS = 16, 128


def api_request(
    config: Config, variant: str, sample: Sample, draw: int = 1, turn: NextTurn | None = None
) -> dict[str, Any]:
    """Return the request of one draw (from 1) of one pair as an API gets it.

    Of earlier answers an API gets their text alone: some refuse the other fields of their own messages.

    Args:
        config: the experiment.
        variant: the variant.
        sample: the question.
        draw: which completion of the pair, from 1.
        turn: a later turn of the conversation; None: the first.

    Raises:
        VariantError: the variant's transform failed, or begins the answer, which an API does not continue.
    """
    body = chat_request(config, config.model.source, variant, sample, draw)
    del body["return_token_ids"]
    if turn is not None:
        opening, later = turn.messages[: len(body["messages"])], turn.messages[len(body["messages"]) :]
        said = [{"role": one["role"], "content": one["content"]} for one in later]
        body = turn_request(body, NextTurn(turn.number, [*opening, *said]))
    if (problem := begun_answer(variant, body["messages"])) is not None:
        raise VariantError(problem)
    body |= config.generation.api_request
    return {key: value for key, value in body.items() if value is not None}


def begun_answer(variant: str, messages: Sequence[Message]) -> str | None:
    """Return why an API cannot answer messages whose last one begins the answer; None where it can."""
    if messages[-1]["role"] != "assistant":
        return None
    return (
        f"variants.{variant}: begins the answer, which generation.backend: api cannot continue; end with a user message"
    )


def most_tokens(request: Mapping[str, Any]) -> tuple[int, int]:
    """Return upper bounds of the tokens of a request's prompt, by its length in bytes, and of its completion."""
    # The whole request, as schemas of a reply and tools are billed as well.
    text, messages = len(json.dumps(request, ensure_ascii=False).encode()), request["messages"]
    completion = max(request.get("max_tokens", 0), request.get("max_completion_tokens", 0))
    return text + MESSAGE_TOKENS * len(messages) + FRAME_TOKENS, completion


def usage_of(response: Any) -> Usage:
    """Return the token counts of a response; null where it counts none."""
    usage = response.get("usage") if isinstance(response, dict) else None
    counts = {key: usage.get(key) for key in Usage.model_fields} if isinstance(usage, dict) else {}
    return Usage(**{key: count for key, count in counts.items() if type(count) is int and count >= 0})


def cost_of(usage: Usage, price: Price, most: float) -> float:
    """Return the cost of a response, or the `most` that it may cost where it does not count its tokens."""
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return most
    return price.of(usage.prompt_tokens, usage.completion_tokens)


def check_reply(response: Any) -> dict[str, Any]:
    """Return the response of an API if it holds one complete answer.

    Raises:
        ResponseError: it holds an error, no choice, no text, or an answer that did not end by itself or at its limit.
    """
    if isinstance(response, dict) and response.get("error") is not None:
        raise ResponseError(f"the answer holds an error: {str(response['error'])[:300]}")
    try:
        choice = response["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text = message.get("content")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ResponseError(f"the answer is no chat completion: {str(response)[:200]}") from None
    if finish not in ("stop", "length"):
        raise ResponseError(f"the completion did not end properly (finish_reason {finish!r})")
    if not isinstance(text, str | None) or not (text or finish == "length"):
        raise ResponseError("the completion is empty: it has no text")
    if half_surrogate(message) is not None:
        raise ResponseError("the completion holds half a surrogate pair, which no UTF-8 file can hold")
    return dict(response)


def api_trajectory(
    config: Config,
    variant: str,
    sample: Sample,
    request: dict[str, Any],
    response: dict[str, Any],
    delivery: Delivery,
    *,
    draw: int = 1,
    turn: NextTurn | None = None,
    before: Trajectory | None = None,
) -> Trajectory:
    """Grade a response that `check_reply` accepted, and put everything that is known of it together.

    Args:
        config: the experiment.
        variant: the variant.
        sample: the question.
        request: the request that `api_request` made.
        response: the API's.
        delivery: how it came about.
        draw: which completion of the pair, from 1.
        turn: the later turn that is answered; None: the first.
        before: the conversation up to the answer before; None: this is the first.
    """
    choice, usage = response["choices"][0], usage_of(response)
    kept = {name: choice["message"][name] for name in MESSAGE_FIELDS if choice["message"].get(name)}
    message: Message = {"role": "assistant", "content": choice["message"].get("content") or "", **kept}
    state = _state(config, variant, sample, request, delivery.attempts, draw, turn, before).model_copy(
        update={
            "finish_reason": choice["finish_reason"],
            "usage": usage,
            "response": response,
            "worker_id": delivery.worker_id,
            "hardware": delivery.hardware,
            "timing": Timing(started=delivery.started, seconds=round(delivery.seconds, 4)),
        }
    )
    made = Trajectory([*(turn.messages if turn else request["messages"]), message], state)
    return replace(made, outcome=graded(config, variant, sample, made, delivery, draw))


def api_failure(
    config: Config,
    variant: str,
    sample: Sample,
    request: dict[str, Any],
    error: str,
    attempts: list[Attempt],
    *,
    draw: int = 1,
    turn: NextTurn | None = None,
    before: Trajectory | None = None,
) -> Trajectory:
    """Return the record of a request that no API answered, see `failed` in `emoprobe.conversations.responses`."""
    state = _state(config, variant, sample, request, attempts, draw, turn, before)
    state = state.model_copy(update={"error": error})
    messages: list[Message] = [*(turn.messages if turn else request["messages"]), {"role": "assistant", "content": ""}]
    return Trajectory(messages, state, recorded_outcome(variant, sample, draw))


def _state(
    config: Config,
    variant: str,
    sample: Sample,
    request: dict[str, Any],
    attempts: list[Attempt],
    draw: int,
    turn: NextTurn | None,
    before: Trajectory | None,
) -> AgentState:
    of_turns, opening = turn_fields(config, 1 if turn is None else turn.number, before)
    return AgentState(
        experiment=config.experiment.name,
        variant=variant,
        sample_id=draw_id(sample.sample_id, draw),
        backend="api",
        request=request,
        message_spans=conversation_spans(
            config, variant, sample.question, sample.index, request["messages"], opening, draw
        ),
        attempts=attempts,
        hashes=Hashes(sample=sample.sha256),
        **of_turns,
    )
