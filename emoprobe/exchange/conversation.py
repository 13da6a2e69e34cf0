"""One conversation as the readers of other formats return it, and the fields that a user can name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emoprobe.results.trajectory import Message

# Fields that an error message lists at most.
LISTED = 40
# Reasons to stop of OpenAI's API → those of Inspect.
STOP_REASONS = {"stop": "stop", "length": "max_tokens", "tool_calls": "tool_calls", "content_filter": "content_filter"}
# Key of a sample's metadata in a log of Inspect → fields of `agent_state.json` that the log has no other place for.
RECORD = "emoprobe"
RECORDED = {"worker_id", "hardware", "attempts", "prefill", "thought", "turn", "earlier_turns"}


class ExchangeError(ValueError):
    """Raised when conversations cannot be imported or exported; the message says where and what to do."""


@dataclass(frozen=True)
class Conversation:
    """A conversation of another tool.

    Attributes:
        where: file and place in it, for error messages.
        fields: everything that `--variant`, `--id`, `--gold` and `--group` may name, nested.
        messages: the conversation, in OpenAI's form.
        opening: number of messages before the completion.
        id: the tool's id of the question; None if it has none.
        draw: number of the completion of this question and variant, from 1; None if the tool does not count them.
        question: the question alone; None: the last user message.
        gold: gold answer as the tool has it; None if unknown.
        choices: options of a multiple-choice question.
        scores: scores by name, as the tool recorded them.
        group: template or level of the question.
        model: name of the model.
        request: sampling parameters such as `max_tokens`.
        usage: token counts by the names of OpenAI's API.
        started: start of the request in ISO 8601.
        seconds: duration of the request.
        finish_reason: `stop`, `length` or another reason of OpenAI's API.
        failure: reason why there is no completion.
        record: fields of `agent_state.json` and the seed of the request, of a conversation that Emoprobe exported; its
            completion is graded again.
        described: facts of such a conversation's variant that no file of a trajectory holds.
    """

    where: str
    fields: Mapping[str, Any]
    messages: list[Message]
    opening: int
    id: str | None = None
    draw: int | None = None
    question: str | None = None
    gold: Any = None
    choices: list[str] | None = None
    scores: Mapping[str, Any] = field(default_factory=dict)
    group: str | None = None
    model: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, int] = field(default_factory=dict)
    started: str | None = None
    seconds: float | None = None
    finish_reason: str | None = None
    failure: str | None = None
    record: Mapping[str, Any] | None = None
    described: Mapping[str, Any] = field(default_factory=dict)

    def value(self, name: str, option: str) -> Any:
        """Return the value of a field by its dotted name.

        Raises:
            ExchangeError: there is no such field; the message lists those that there are.
        """
        if name in self.fields:
            return self.fields[name]
        here: Any = self.fields
        for part in name.split("."):
            if not isinstance(here, Mapping) or part not in here:
                names = list(_names(self.fields))
                more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
                raise ExchangeError(
                    f"{self.where}: there is no field {name!r}; choose one with {option} "
                    f"(fields there: {', '.join(names[:LISTED]) or 'none'}{more})"
                )
            here = here[part]
        return here


def _names(fields: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in fields.items():
        if isinstance(value, Mapping) and value and prefix.count(".") < 2:
            yield from _names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def text_or_none(value: Any) -> str | None:
    """Return a value as text; None stays."""
    return None if value is None else str(value)


def recorded_correctness(value: Any) -> float | None:
    """Return a recorded score in [0, 1]; None if it has no such meaning.

    Understood are Booleans, numbers in [0, 1], the letters of Inspect (C, I, P for half, N for no answer), and the
    words true, false, yes, no, correct and incorrect.
    """
    if isinstance(value, str):
        words = {"c": 1.0, "i": 0.0, "p": 0.5, "n": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
        return (words | {"correct": 1.0, "incorrect": 0.0, "1": 1.0, "0": 0.0}).get(value.strip().lower())
    if isinstance(value, bool | int | float) and 0 <= value <= 1:
        return float(value)
    return None


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the values of a file of JSON lines, each after the number of its line, one line in memory at a time.

    Raises:
        ExchangeError: a line is no JSON.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise ExchangeError(f"{path}, line {number} is no JSON ({error})") from None
