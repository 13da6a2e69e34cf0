"""One trajectory: the three files of a pair of variant and sample.

`trajectory.jsonl` holds the conversation, `agent_state.json` the whole request and response, `sample.json` the grade.
The conversation is written last, so that it vouches for the others. A folder that another program made may hold the
conversation alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import ConfigDict, Field

from emoprobe.results import atomic
from emoprobe.results.layout import TRAJECTORY_FILES
from emoprobe.results.record import DamagedError, Record, unreadable

MESSAGES, STATE, OUTCOME = TRAJECTORY_FILES
Message = dict[str, Any]
Span = tuple[int, int, int]
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


class Attempt(Record):
    """One try of a request: `seconds` it took, and the `error` it ended with (null: it was answered)."""

    worker: str | None = None
    started: str | None = None
    seconds: float | None = None
    error: str | None = None


class Usage(Record):
    """Token counts of a request."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class Timing(Record):
    """When the good attempt started (UTC, ISO 8601), and how many seconds it took."""

    started: str | None = None
    seconds: float | None = None


class MessageSpans(Record):
    """Where parts of the conversation stand in its opening: (message, start, end) in characters, or null."""

    system: Span | None = None
    prefix: Span | None = None
    question: Span | None = None


class AgentState(Record):
    """`agent_state.json`: the full request and response. `error` says why no server answered; null: one did.

    `sample_id` is the name of the folder: the sample's id, with `-d2`, `-d3` … for further draws. `hardware` is what
    the worker ran on. `prompt_text` is what the messages of `request` were rendered to, with `date` as today. `prefill`
    is how many characters of the answer were given as its beginning (null: none), `control_tokens` which control tokens
    of the model the messages write out (null: none), which it then reads as markup. Records of version 0.2 lack these.
    """

    experiment: str | None = None
    variant: str | None = None
    sample_id: str | None = None
    backend: str | None = None
    request: dict[str, Any] = Field(default_factory=dict)
    message_spans: MessageSpans | None = None
    prompt_text: str | None = None
    date: str | None = None
    prefill: int | None = None
    control_tokens: list[str] | None = None
    prompt_token_ids: list[int] | None = None
    completion_token_ids: list[int] | None = None
    finish_reason: str | None = None
    usage: Usage = Usage()
    response: dict[str, Any] = Field(default_factory=dict)
    worker_id: str | None = None
    hardware: str | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    timing: Timing = Timing()
    error: str | None = None

    @property
    def token_ids(self) -> list[int] | None:
        """Prompt and completion as one sequence; None where they were not recorded."""
        if self.prompt_token_ids is None or self.completion_token_ids is None:
            return None
        return self.prompt_token_ids + self.completion_token_ids


class SampleData(Record):
    """The question of a trajectory and its gold answer."""

    question: str | None = None
    answer: str | int | float | None = None
    sample_id: str | None = None


class Metrics(Record):
    """The grade of a trajectory when it was generated, each in [0, 1]: `correctness` is the strict reading.

    All are null where no server answered.
    """

    correctness: float | None = None
    format: float | None = None
    efficiency: float | None = None


class Outcome(Record):
    """`sample.json`: what was asked, what was answered, and how well.

    `sample_id` is the name of the folder, that of `sample_data` the sample's own id.
    """

    sample_data: SampleData = SampleData()
    sample_id: str | None = None
    variant: str | None = None
    metrics: Metrics = Metrics()
    extracted_answer: str | int | float | None = None
    worker_id: str | None = None
    processing_time: float | None = None

    model_config = ConfigDict(extra="allow", frozen=True)


@dataclass(frozen=True)
class Trajectory:
    """A conversation, opening and answer, with what is known of how it came about.

    `messages` ends with the assistant's answer. `state` and `outcome` are None where a folder lacks their files.
    """

    messages: list[Message]
    state: AgentState | None = None
    outcome: Outcome | None = None

    @property
    def opening(self) -> list[Message]:
        """The messages before the answer."""
        return self.messages[:-1]

    @property
    def completion(self) -> str:
        """What the grader reads: the answer's content, or the separate reasoning where there is no content."""
        return message_text(self.messages[-1])

    @property
    def failure(self) -> str | None:
        """Why no server answered, so that the assistant's message is empty; None for an answered request."""
        return None if self.state is None else self.state.error

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a trajectory's folder.

        Raises:
            DamagedError: the conversation is missing, or a file is damaged; the message names it.
        """
        messages = read_messages(folder / MESSAGES)
        state, outcome = folder / STATE, folder / OUTCOME
        return cls(
            messages,
            AgentState.read_file(state) if state.exists() else None,
            Outcome.read_file(outcome) if outcome.exists() else None,
        )

    def write(self, folder: Path) -> None:
        """Write the files of a folder, the conversation last.

        Raises:
            OSError: one cannot be written.
        """
        if self.state is not None:
            atomic.write_text(folder / STATE, atomic.to_json(self.state.values(), indent=None))
        if self.outcome is not None:
            atomic.write_json(folder / OUTCOME, self.outcome.values())
        atomic.write_text(folder / MESSAGES, message_lines(self.messages))


def message_text(message: Message) -> str:
    """The content of a message, or its separate reasoning where there is no content."""
    return str(message.get("content") or message.get("reasoning_content") or message.get("reasoning") or "")


def message_lines(messages: Iterable[Message]) -> str:
    """The content of `trajectory.jsonl`: one message a line, no field that is null."""
    lines = []
    for message in messages:
        kept = {"role": message["role"], "content": message.get("content") or ""}
        kept |= {field: message[field] for field in MESSAGE_FIELDS if message.get(field) not in (None, [])}
        lines.append(atomic.to_json(kept, indent=None))
    return "".join(lines)


def read_messages(path: Path) -> list[Message]:
    """Read `trajectory.jsonl`.

    Raises:
        DamagedError: it is missing, a line is no JSON object, or the last message is not the assistant's.
    """
    try:
        messages = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if not messages or not all(isinstance(message, dict) and "role" in message for message in messages):
        raise DamagedError(path, "a line is no message")
    if messages[-1]["role"] != "assistant":
        raise DamagedError(path, "it does not end with the assistant's message")
    return messages
