"""Samples of lm-evaluation-harness: the files `samples_TASK_DATE.jsonl` of `--log_samples`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from emoprobe.exchange.conversation import Conversation, ExchangeError, json_lines
from emoprobe.graders.answers import LETTERS
from emoprobe.results.trajectory import Message

_NAME = re.compile(r"samples_(?P<task>.+?)(?:_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+))?\.jsonl")
REQUIRED = ("doc_id", "arguments", "resps")


def task_of_name(path: Path) -> str:
    """Return the task in the name of a file of samples."""
    match = _NAME.fullmatch(path.name)
    return match["task"] if match else path.stem


def read_samples(path: Path, by_task: bool, filter: str | None = None) -> Iterator[Conversation]:
    """Read the samples of a task.

    Generated text is the completion. Of options that were compared by their likelihood, the most likely one is the
    completion. Each sample occurs once for each filter of the task; the samples of one filter are read.

    Args:
        path: `samples_TASK_DATE.jsonl`.
        by_task: whether ids are to contain the task.
        filter: name of the filter; None: that of the first sample.

    Raises:
        ExchangeError: a line is no sample of lm-evaluation-harness, or none has the filter.
    """
    task, model = task_of_name(path), _model(path)
    filters: dict[str, None] = {}
    yielded = 0
    for number, sample in json_lines(path):
        where = f"{path}, line {number}"
        if not isinstance(sample, dict) or not all(key in sample for key in REQUIRED):
            raise ExchangeError(f"{where} is no sample of lm-evaluation-harness: {', '.join(REQUIRED)} are needed")
        name = str(sample.get("filter", "none"))
        filters[name] = None
        if name == (next(iter(filters)) if filter is None else filter):
            yielded += 1
            yield from _conversations(sample, where, task, model, by_task)
    if filter is not None and filters and not yielded:
        raise ExchangeError(
            f"{path}: no sample has the filter {filter!r}; choose another --filter ({', '.join(filters)})"
        )


def _conversations(
    sample: dict[str, Any], where: str, task: str, model: str | None, by_task: bool
) -> Iterator[Conversation]:
    """Yield a conversation for each repeat."""
    try:
        requests = [list(request.values()) for request in sample["arguments"].values()]
        responses = sample["resps"]
        opening = _prompt(requests[0][0])
        options = [str(request[1]).strip() for request in requests] if _compares(requests, responses) else None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ExchangeError(f"{where}: arguments and resps are not as expected ({error!r})") from None
    if options is not None:
        likelihoods = [float(response[0][0]) for response in responses]
        completions = [options[likelihoods.index(max(likelihoods))]]
    else:
        completions = [str(text) for text in responses[0]]
    settings = requests[0][1] if len(requests[0]) > 1 and isinstance(requests[0][1], Mapping) else {}
    maximum = settings.get("max_gen_toks", settings.get("max_tokens"))
    named = {"max_tokens": maximum, "temperature": settings.get("temperature"), "stop": settings.get("until")}
    scores = {name: sample[name] for name in sample.get("metrics", ()) if name in sample}
    target = sample.get("target")
    for draw, completion in enumerate(completions, 1):
        yield Conversation(
            where=where,
            fields={"task": task, "model": model, "doc": sample.get("doc"), "arguments": settings},
            messages=[*opening, {"role": "assistant", "content": completion}],
            opening=len(opening),
            id=f"{task}_{sample['doc_id']}" if by_task else str(sample["doc_id"]),
            draw=draw if len(completions) > 1 else None,
            gold=_target(target, options),
            choices=options,
            # The score of several repeats is of all of them together.
            scores=scores if len(completions) == 1 else {},
            model=model,
            request={key: value for key, value in named.items() if value is not None},
        )


def _compares(requests: list[list[Any]], responses: list[Any]) -> bool:
    """Return whether responses are log-likelihoods of continuations, and not text."""
    return all(isinstance(response[0], list | tuple) for response in responses) and isinstance(requests[0][1], str)


def _prompt(argument: Any) -> list[Message]:
    """Return the messages of a prompt: of a chat as JSON, or text as one user message."""
    text = argument[0] if isinstance(argument, list) else argument
    if text.startswith("[{"):
        try:
            messages = json.loads(text)
        except ValueError:
            messages = None
        if isinstance(messages, list) and all(isinstance(one, dict) and "role" in one for one in messages):
            return [{"content": "", **{key: one[key] for key in ("role", "content") if key in one}} for one in messages]
    return [{"role": "user", "content": text}]


def _target(target: Any, options: list[str] | None) -> Any:
    """Return the gold answer; of options, which samples store as text of an index, the letter or the option."""
    if options is None or not isinstance(target, str) or not target.strip().isdecimal():
        return target
    index = int(target)
    if index >= len(options):
        return target
    # An index can also be the text of another option; a letter rarely is.
    return LETTERS[index] if index < len(LETTERS) else options[index]


def _model(path: Path) -> str | None:
    """Return the model as the results beside the samples name it."""
    match = _NAME.fullmatch(path.name)
    results = path.with_name(f"results_{match['date']}.json") if match and match["date"] else None
    if results is None or not results.exists():
        return None
    try:
        name = json.loads(results.read_bytes()).get("model_name")
    except (ValueError, AttributeError):
        return None
    return str(name) if name else None
