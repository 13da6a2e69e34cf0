"""From a server's response to the record of a trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.conversations.rendering import DEFAULT_DATE, RenderedPrompt
from emoprobe.conversations.requests import message_spans
from emoprobe.conversations.samples import draw_id
from emoprobe.graders import grading
from emoprobe.results.trajectory import (
    AgentState,
    Attempt,
    Hashes,
    Message,
    Metrics,
    Outcome,
    Sample,
    SampleData,
    Timing,
    Trajectory,
    Usage,
    message_text,
)
from emoprobe.text import half_surrogate

TOKENS = ("prompt_token_ids", "token_ids")  # the fields of a response that a record keeps by themselves


class ResponseError(ValueError):
    """A server's answer that is no completion; another server may do better."""


@dataclass(frozen=True)
class Delivery:
    """How a response came about: which worker gave it, after which attempts, in which time, on what hardware."""

    worker_id: str
    attempts: list[Attempt]
    started: str
    seconds: float
    hardware: str | None = None


class OtherPromptError(ResponseError):
    """The answer to another prompt than was sent."""


def check_response(response: Any, prompt_ids: list[int]) -> dict[str, Any]:
    """Return the response if it holds one complete choice with its token ids, for this prompt.

    Raises:
        OtherPromptError: the server says that it answered another prompt.
        ResponseError: it holds none.
    """
    try:
        choice = response["choices"][0]
        text, tokens, prompt = choice["text"], choice["token_ids"], choice["prompt_token_ids"]
        usage = response["usage"]["completion_tokens"]
    except (KeyError, IndexError, TypeError):
        raise ResponseError(f"the answer is no completion with token ids: {str(response)[:200]}") from None
    if not tokens or not prompt or not isinstance(text, str):
        raise ResponseError("the completion is empty: it has no tokens")
    if prompt != prompt_ids:
        same = next((at for at, (a, b) in enumerate(zip(prompt, prompt_ids, strict=False)) if a != b), None)
        where = f"they differ from token {same} on" if same is not None else "one is the beginning of the other"
        raise OtherPromptError(
            f"the server answered another prompt than was sent ({len(prompt)} tokens in place of {len(prompt_ids)}; "
            f"{where}): it must take token ids as they are"
        )
    if half_surrogate(text) is not None:
        raise ResponseError("the completion holds half a surrogate pair, which no UTF-8 file can hold")
    if choice.get("finish_reason") not in ("stop", "length"):
        raise ResponseError(f"the completion did not end properly (finish_reason {choice.get('finish_reason')!r})")
    if usage != len(tokens):
        raise ResponseError(f"the completion has {len(tokens)} token ids but reports {usage} tokens")
    return dict(response)


def completed(
    config: Config,
    variant: str,
    sample: Sample,
    request: dict[str, Any],
    prompt: RenderedPrompt,
    response: dict[str, Any],
    delivery: Delivery,
    *,
    draw: int = 1,
) -> Trajectory:
    """Grade a response that `check_response` accepted, and put everything that is known of it together.

    The answer is the completion, after the prefill where the opening ends with one.
    """
    choice, usage = response["choices"][0], response["usage"]
    message = {"role": "assistant", "content": (prompt.prefill or "") + choice["text"]}
    grade = grading.grade(
        message_text(message), sample.answer, finished=choice["finish_reason"] != "length", choices=sample.choices
    )
    state = _state(config, variant, sample, request, prompt, delivery.attempts, draw).model_copy(
        update={
            "prefill": None if prompt.prefill is None else len(prompt.prefill),
            "prompt_token_ids": prompt.token_ids,
            "completion_token_ids": choice["token_ids"],
            "finish_reason": choice["finish_reason"],
            "usage": Usage(**{key: usage[key] for key in Usage.model_fields}),
            "response": {
                **{key: value for key, value in response.items() if key not in TOKENS and key != "choices"},
                "choices": [{key: value for key, value in choice.items() if key not in TOKENS}],
            },
            "worker_id": delivery.worker_id,
            "hardware": delivery.hardware,
            "timing": Timing(started=delivery.started, seconds=round(delivery.seconds, 4)),
        }
    )
    outcome = _outcome(variant, sample, draw).model_copy(
        update={
            "metrics": Metrics(
                correctness=float(grade.correct),
                format=float(grade.compliant),
                efficiency=round(grading.efficiency(usage["completion_tokens"], config.generation.max_tokens), 6),
            ),
            "extracted_answer": grade.answer,
            "worker_id": delivery.worker_id,
            "processing_time": round(delivery.seconds, 4),
        }
    )
    return Trajectory([*_opening(request), message], state, outcome)


def failed(
    config: Config,
    variant: str,
    sample: Sample,
    request: dict[str, Any],
    prompt: RenderedPrompt,
    error: str,
    attempts: list[Attempt],
    *,
    draw: int = 1,
) -> Trajectory:
    """The record of a request that no server answered.

    The conversation ends with an empty message of the assistant and holds nothing that differs between runs;
    `agent_state.json` has the error and every attempt, `sample.json` no metrics.
    """
    state = _state(config, variant, sample, request, prompt, attempts, draw).model_copy(update={"error": error})
    return Trajectory(
        [*_opening(request), {"role": "assistant", "content": ""}], state, _outcome(variant, sample, draw)
    )


def _opening(request: dict[str, Any]) -> list[Message]:
    """The messages of a request without the beginning of the answer, with which they may end."""
    messages: list[Message] = request["messages"]
    return messages[:-1] if messages[-1]["role"] == "assistant" else messages


def _state(
    config: Config,
    variant: str,
    sample: Sample,
    request: dict[str, Any],
    prompt: RenderedPrompt,
    attempts: list[Attempt],
    draw: int,
) -> AgentState:
    """What is known of a request before its answer."""
    return AgentState(
        experiment=config.experiment.name,
        variant=variant,
        sample_id=draw_id(sample.sample_id, draw),
        backend=config.generation.backend,
        request=request,
        message_spans=message_spans(config, request["messages"], sample.question),
        prompt_text=prompt.text,
        date=(config.prompt.day or DEFAULT_DATE).isoformat(),
        control_tokens=list(prompt.control_tokens) or None,
        attempts=attempts,
        hashes=Hashes(sample=sample.sha256),
    )


def _outcome(variant: str, sample: Sample, draw: int) -> Outcome:
    return Outcome(
        sample_data=SampleData(question=sample.question, answer=sample.answer, sample_id=sample.sample_id),
        sample_id=draw_id(sample.sample_id, draw),
        variant=variant,
    )
