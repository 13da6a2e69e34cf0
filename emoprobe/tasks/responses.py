"""From a server's response to the record of a trajectory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.results.sample import Sample
from emoprobe.results.trajectory import (
    AgentState,
    Attempt,
    Hashes,
    Metrics,
    Outcome,
    SampleData,
    Timing,
    Trajectory,
    Usage,
    message_text,
)
from emoprobe.tasks import grading
from emoprobe.tasks.requests import message_spans
from emoprobe.tasks.samples import draw_id
from emoprobe.text import half_surrogate


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


def check_response(response: Any) -> dict[str, Any]:
    """Return the response if it holds one complete choice with its token ids.

    Raises:
        ResponseError: it does not.
    """
    try:
        choice = response["choices"][0]
        message, tokens, prompt = choice["message"], choice["token_ids"], response["prompt_token_ids"]
        usage = response["usage"]["completion_tokens"]
    except (KeyError, IndexError, TypeError):
        raise ResponseError(f"the answer is no chat completion with token ids: {str(response)[:200]}") from None
    if not tokens or not prompt:
        raise ResponseError("the completion is empty: it has no tokens")
    if message.get("role") != "assistant" or choice.get("finish_reason") not in ("stop", "length"):
        raise ResponseError(
            f"the completion did not end properly (role {message.get('role')!r}, "
            f"finish_reason {choice.get('finish_reason')!r})"
        )
    if (place := half_surrogate(message)) is not None:
        raise ResponseError(f"the completion holds half a surrogate pair ({place}), which no UTF-8 file can hold")
    if usage != len(tokens):
        raise ResponseError(f"the completion has {len(tokens)} token ids but reports {usage} tokens")
    return dict(response)


def completed(
    config: Config,
    variant: str,
    sample: Sample,
    request: dict[str, Any],
    response: dict[str, Any],
    delivery: Delivery,
    *,
    draw: int = 1,
) -> Trajectory:
    """Grade a response that `check_response` accepted, and put everything that is known of it together."""
    choice, usage = response["choices"][0], response["usage"]
    message = choice["message"]
    grade = grading.grade(
        message_text(message), sample.answer, finished=choice["finish_reason"] != "length", choices=sample.choices
    )
    state = _state(config, variant, sample, request, delivery.attempts, draw).model_copy(
        update={
            "prompt_token_ids": response["prompt_token_ids"],
            "completion_token_ids": choice["token_ids"],
            "finish_reason": choice["finish_reason"],
            "usage": Usage(**{key: usage[key] for key in Usage.model_fields}),
            "response": {
                **{key: value for key, value in response.items() if key not in ("prompt_token_ids", "choices")},
                "choices": [{key: value for key, value in choice.items() if key != "token_ids"}],
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
    return Trajectory([*request["messages"], message], state, outcome)


def failed(
    config: Config,
    variant: str,
    sample: Sample,
    request: dict[str, Any],
    error: str,
    attempts: list[Attempt],
    *,
    draw: int = 1,
) -> Trajectory:
    """The record of a request that no server answered.

    The conversation ends with an empty message of the assistant and holds nothing that differs between runs;
    `agent_state.json` has the error and every attempt, `sample.json` no metrics.
    """
    state = _state(config, variant, sample, request, attempts, draw).model_copy(update={"error": error})
    return Trajectory(
        [*request["messages"], {"role": "assistant", "content": ""}], state, _outcome(variant, sample, draw)
    )


def _state(
    config: Config, variant: str, sample: Sample, request: dict[str, Any], attempts: list[Attempt], draw: int
) -> AgentState:
    """What is known of a request before its answer."""
    return AgentState(
        experiment=config.experiment.name,
        variant=variant,
        sample_id=draw_id(sample.sample_id, draw),
        backend=config.generation.backend,
        request=request,
        message_spans=message_spans(config, request["messages"], sample.question),
        attempts=attempts,
        hashes=Hashes(sample=sample.sha256),
    )


def _outcome(variant: str, sample: Sample, draw: int) -> Outcome:
    return Outcome(
        sample_data=SampleData(question=sample.question, answer=sample.answer, sample_id=sample.sample_id),
        sample_id=draw_id(sample.sample_id, draw),
        variant=variant,
    )
