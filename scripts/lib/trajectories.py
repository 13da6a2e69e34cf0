"""One trajectory: the request that makes it, and the three files that it becomes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.lib import atomic, grading
from scripts.lib.config import Config
from scripts.lib.paths import Layout
from scripts.lib.samples import Sample, sample_ids
from scripts.lib.variants import Message, base_messages, opening_messages

# Fields of an OpenAI chat message that a trajectory keeps where they are not null, after role and content.
MESSAGE_FIELDS = (
    "name",
    "reasoning_content",
    "reasoning",
    "refusal",
    "tool_calls",
    "tool_call_id",
    "audio",
    "annotations",
)
Span = tuple[int, int, int]


class ResponseError(ValueError):
    """A server's answer that is no completion; another server may do better."""


@dataclass(frozen=True)
class Delivery:
    """How a response came about: which worker gave it, after which attempts, in which time."""

    worker_id: str
    attempts: list[dict[str, Any]]
    started: str
    seconds: float


def experiment_pairs(config: Config) -> list[tuple[str, str]]:
    """Variant and sample of every pair of an experiment."""
    return [(variant, sample) for variant in config.variants for sample in sample_ids(config.dataset)]


def request_seed(seed: int, sample_id: str) -> int:
    """The sampling seed of a sample, in [0, 2³¹), the same for all variants."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{sample_id}".encode()).digest()[:4], "big") >> 1


def chat_request(config: Config, model: str, variant: str, sample: Sample) -> dict[str, Any]:
    """The body of the chat completion request of one pair.

    Raises:
        TransformError: the variant's transform failed.
    """
    generation = config.generation
    body: dict[str, Any] = {
        "model": model,
        "messages": opening_messages(config, variant, sample.question, sample.index),
        "max_tokens": generation.max_tokens,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "seed": request_seed(config.experiment.seed, sample.sample_id),
        "return_token_ids": True,
    }
    if generation.stop:
        body["stop"] = generation.stop
    if generation.chat_template:
        body["chat_template_kwargs"] = generation.chat_template
    return body


def message_spans(config: Config, messages: list[Message], question: str) -> dict[str, Span | None]:
    """Where system text, prefix and question stand in the opening messages.

    Each is (message, start, end) in characters of that message's content, or None where there is none. The prefix is
    what the variant added: the part of the first user or system message that is not in the message that every
    variant starts from. A transform that rewrote a message beyond recognition has no prefix.
    """
    base = {message["role"]: message["content"] for message in base_messages(config.prompt, question)}
    spans: dict[str, Span | None] = {"system": None, "prefix": None, "question": None}
    for number, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role not in ("system", "user") or spans[{"system": "system", "user": "question"}[role]] is not None:
            continue
        original = base.get(role, "")
        at = content.find(original) if original else -1
        added = _added(content, original, at)
        if added is not None and spans["prefix"] is None:
            spans["prefix"] = (number, *added)
        if role == "system" and original and at >= 0:
            spans["system"] = (number, at, at + len(original))
        if role == "user":
            at = content.find(question, max(at, 0))
            spans["question"] = (number, at, at + len(question)) if at >= 0 else None
    return spans


def _added(content: str, original: str, at: int) -> tuple[int, int] | None:
    """The longer of what stands before and after the original in a message, without white space around it."""
    if original and at < 0:
        return None
    before, after = (content[:at], content[at + len(original) :]) if original else (content, "")
    part, offset = (before, 0) if len(before) >= len(after) else (after, at + len(original))
    text = part.strip()
    start = offset + part.find(text)
    return (start, start + len(text)) if text else None


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
    if usage != len(tokens):
        raise ResponseError(f"the completion has {len(tokens)} token ids but reports {usage} tokens")
    return dict(response)


def assistant_text(message: Message) -> str:
    """What the grader reads: the content, or the separate reasoning where there is no content."""
    return str(message.get("content") or message.get("reasoning_content") or message.get("reasoning") or "")


def trajectory_lines(messages: list[Message], answer: Message) -> str:
    """The content of `trajectory.jsonl`: one message a line, no field that is null."""
    lines = []
    for message in [*messages, answer]:
        kept = {"role": message["role"], "content": message.get("content") or ""}
        kept |= {field: message[field] for field in MESSAGE_FIELDS if message.get(field) not in (None, [])}
        lines.append(atomic.to_json(kept, indent=None))
    return "".join(lines)


def write_trajectory(
    layout: Layout,
    config: Config,
    variant: str,
    sample: Sample,
    request: dict[str, Any],
    response: dict[str, Any],
    delivery: Delivery,
) -> None:
    """Grade a response and write the pair's three files, the trajectory last, so that it vouches for the others."""
    choice, usage = response["choices"][0], response["usage"]
    message = choice["message"]
    grade = grading.grade(assistant_text(message), sample.gold)
    directory = layout.pair(variant, sample.sample_id)
    state = {
        "experiment": config.experiment.name,
        "variant": variant,
        "sample_id": sample.sample_id,
        "backend": config.generation.backend,
        "request": request,
        "message_spans": message_spans(config, request["messages"], sample.question),
        "prompt_token_ids": response["prompt_token_ids"],
        "completion_token_ids": choice["token_ids"],
        "finish_reason": choice["finish_reason"],
        "usage": {key: usage[key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")},
        "response": {
            **{key: value for key, value in response.items() if key not in ("prompt_token_ids", "choices")},
            "choices": [{key: value for key, value in choice.items() if key != "token_ids"}],
        },
        "worker_id": delivery.worker_id,
        "attempts": delivery.attempts,
        "timing": {"started": delivery.started, "seconds": round(delivery.seconds, 4)},
    }
    summary = {
        "sample_data": {"question": sample.question, "answer": sample.answer, "sample_id": sample.sample_id},
        "sample_id": sample.sample_id,
        "variant": variant,
        "metrics": {
            "correctness": float(grade.correct),
            "format": float(grade.compliant),
            "efficiency": round(grading.efficiency(usage["completion_tokens"], config.generation.max_tokens), 6),
        },
        "extracted_answer": grade.answer,
        "worker_id": delivery.worker_id,
        "processing_time": round(delivery.seconds, 4),
    }
    atomic.write_text(directory / "agent_state.json", atomic.to_json(state, indent=None))
    atomic.write_json(directory / "sample.json", summary)
    atomic.write_text(directory / "trajectory.jsonl", trajectory_lines(request["messages"], message))


class DamagedError(ValueError):
    """A result file that cannot be read; the message names it."""


def read_json(path: Path) -> Any:
    """Read a result file.

    Raises:
        DamagedError: it is missing, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} is damaged ({error}); delete it and run again") from None


def read_messages(path: Path) -> list[Message]:
    """Read `trajectory.jsonl`.

    Raises:
        DamagedError: it is missing, a line is no JSON object, or the last message is not the assistant's.
    """
    try:
        messages = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise DamagedError(f"{path} is damaged ({error}); delete it and run again") from None
    if not messages or not all(isinstance(message, dict) and "role" in message for message in messages):
        raise DamagedError(f"{path} is damaged (a line is no message); delete it and run again")
    if messages[-1]["role"] != "assistant":
        raise DamagedError(f"{path} is damaged (it does not end with the assistant's message); delete it and run again")
    return messages
