"""Logs of Inspect, read by `inspect_ai.log`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emoprobe.exchange.conversation import RECORD, STOP_REASONS, Conversation, ExchangeError, text_or_none
from emoprobe.results.trajectory import Message
from emoprobe.text import first_line

# Reasons to stop of Inspect → those of OpenAI's API; others have the same name in both.
REASONS = {theirs: ours for ours, theirs in STOP_REASONS.items()} | {"model_length": "length"}
DESCRIBED = ("valence", "asks", "paraphrase")
# Events repeat the messages and can be many times as large.
LEFT_OUT = {"events", "store", "timelines", "events_data"}


def task_of(path: Path) -> str:
    """Return the task of a log."""
    return str(_header(path).eval.task)


def read_log(path: Path, by_task: bool) -> Iterator[Conversation]:
    """Read the samples of a log, one at a time.

    Args:
        path: `.eval` or `.json` file.
        by_task: whether ids are to contain the task.

    Raises:
        ExchangeError: the log cannot be read.
        ModuleNotFoundError: `inspect_ai` is not installed.
    """
    from inspect_ai.log import read_eval_log, read_eval_log_samples

    header = _header(path)
    spec = header.eval
    described = {
        "task": spec.task,
        "model": spec.model,
        "task_args": {**spec.task_args},
        "task_file": spec.task_file,
        "task_display_name": spec.task_display_name,
        "solver": spec.solver,
        "tags": list(spec.tags or []),
        "dataset": spec.dataset.name,
        "log": {**(spec.metadata or {})},
    }
    config = spec.model_generate_config.model_dump(exclude_none=True)
    names = {"max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "stop_seqs": "stop"}
    request = {ours: config[theirs] for theirs, ours in names.items() if theirs in config}
    samples: Iterator[Any] | None = None
    while True:
        try:
            if samples is None:
                # Logs without a list of ids cannot be read one sample at a time.
                samples = (
                    iter(read_eval_log(str(path), resolve_attachments=True).samples or ())
                    if spec.dataset.sample_ids is None
                    else read_eval_log_samples(
                        str(path), all_samples_required=False, resolve_attachments=True, exclude_fields=LEFT_OUT
                    )
                )
            sample = next(samples, None)
        except Exception as error:  # of a zip file, JSON or pydantic; the library has no class for damaged logs
            raise ExchangeError(f"{path} cannot be read: {first_line(error)}") from None
        if sample is None:
            return
        yield _conversation(sample, f"{path}, sample {str(sample.id)[:80]!r}", described, request, by_task)


def _header(path: Path) -> Any:
    from inspect_ai.log import read_eval_log

    try:
        return read_eval_log(str(path), header_only=True)
    except Exception as error:  # as above
        raise ExchangeError(f"{path} cannot be read as a log of Inspect: {first_line(error)}") from None


def _conversation(
    sample: Any, where: str, described: Mapping[str, Any], request: Mapping[str, Any], by_task: bool
) -> Conversation:
    messages = [_message(message) for message in sample.messages]
    answers = [place for place, message in enumerate(messages) if message["role"] == "assistant"]
    usage = sample.output.usage or next(iter(sample.model_usage.values()), None)
    target = sample.target if isinstance(sample.target, str) else next(iter(sample.target), None)
    metadata = dict(sample.metadata)
    choice = sample.output.choices[0] if sample.output.choices else None
    failure = None if sample.error is None else sample.error.message
    record = metadata[RECORD] if isinstance(metadata.get(RECORD), dict) else None
    return Conversation(
        where=where,
        fields={**described, "metadata": metadata, "id": sample.id, "target": target},
        messages=messages or [{"role": "user", "content": str(sample.input)}],
        opening=answers[-1] if answers else len(messages),
        id=f"{described['task']}_{sample.id}" if by_task else str(sample.id),
        draw=sample.epoch,
        question=text_or_none(metadata.get("question")),
        gold=target or None,
        choices=sample.choices,
        scores={name: score.value for name, score in (sample.scores or {}).items()},
        group=text_or_none(metadata.get("group")),
        model=str(described["model"]),
        request=request,
        usage={}
        if usage is None
        else {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
        },
        started=text_or_none(sample.started_at),
        seconds=sample.output.time if sample.output.time is not None else sample.total_time,
        finish_reason=None if choice is None else _reason(choice.stop_reason),
        failure=failure if failure or answers else "there is no message of the assistant",
        record=record,
        # In a log of another program the same names may mean something else.
        described={} if record is None else {key: metadata[key] for key in DESCRIBED if metadata.get(key) is not None},
    )


def _reason(reason: str) -> str | None:
    return None if reason == "unknown" else REASONS.get(reason, reason)


def _message(message: Any) -> Message:
    """Return a message in OpenAI's form. Content that is no text is named, as in `[image]`."""
    texts: list[str] = []
    thoughts: list[str] = []
    parts = [message.content] if isinstance(message.content, str) else message.content
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif part.type == "text":
            texts.append(part.text)
        elif part.type == "reasoning":
            thoughts.append(part.summary or "" if part.redacted else part.reasoning)
        else:
            texts.append(f"[{part.type}]")
    kept: Message = {"role": message.role, "content": "\n".join(texts)}
    if thoughts:
        kept["reasoning_content"] = "\n".join(thoughts)
    if message.role == "assistant" and message.tool_calls:
        kept["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in message.tool_calls
        ]
    if message.role == "tool":
        kept |= {"tool_call_id": message.tool_call_id} if message.tool_call_id else {}
        kept |= {"name": message.function} if message.function else {}
    return kept
