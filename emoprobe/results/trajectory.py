"""One trajectory: the three files of a pair of variant and sample.

`trajectory.jsonl` holds the conversation, `agent_state.json` the whole request and response, `sample.json` the grade.
The conversation is written last, so that it vouches for the others; the state holds the hashes of all three. A folder
that another program made may hold the conversation alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from emoprobe.results import atomic
from emoprobe.results.layout import TRAJECTORY_FILES
from emoprobe.results.record import DamagedError, OpenRecord, Record, content_sha256, unreadable
from emoprobe.text import filled_lines, half_surrogate

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
CALLS = "tool_calls"  # finish reason of an answer that calls tools

# Fields of the state that a single conversation does not have.
TURN_FIELDS = frozenset({"turn", "earlier_turns", "tool_seconds"})


class Attempt(OpenRecord):
    """One try of a request: `seconds` it took, and the `error` it ended with (null: it was answered)."""

    worker: str | None = None
    started: str | None = None
    seconds: float | None = None
    error: str | None = None


class Usage(OpenRecord):
    """Token counts of a request."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None


class Timing(OpenRecord):
    """When the good attempt started (UTC, ISO 8601), and how many seconds it took."""

    started: str | None = None
    seconds: float | None = None


class MessageSpans(Record):
    """Spans of parts of the conversation in its opening: (message, start, end) in characters, or null."""

    system: Span | None = None
    prefix: Span | None = None
    question: Span | None = None


class Hashes(Record):
    """SHA-256 of what belongs to a trajectory, as it was when it was written.

    `messages` and `outcome` are of the bytes of `trajectory.jsonl` and `sample.json`, `state` of the content of
    `agent_state.json` without these hashes, `sample` of the content of the experiment's `samples/{sample}.json`.
    """

    messages: str | None = None
    outcome: str | None = None
    state: str | None = None
    sample: str | None = None


class Thought(Record):
    """The thought of a model before its answer.

    `tokens` is its half-open span in prompt and completion together, without markers; of length 0 where nothing but
    white space was thought. `ended` says who ended it: the `model`, or the `budget` of `generation.thinking`; null: it
    was not ended, so that there is no answer. `answer` is the place of the answer in the content of the assistant's
    message, in characters.
    """

    tokens: tuple[int, int]
    ended: Literal["model", "budget"] | None = None
    answer: int = 0

    @property
    def span(self) -> tuple[int, int] | None:
        """The span of its tokens; None where nothing was thought."""
        return self.tokens if self.tokens[0] < self.tokens[1] else None


class Answered(OpenRecord):
    """How a request was answered.

    `prefill` is how many characters of the answer were given as its beginning (null: none), `control_tokens` which
    control tokens of the model the messages write out (null: none), which it then reads as markup. `prompt_suffix` is
    what follows the chat template's text in the prompt, to begin a thought or to leave it out (null: nothing),
    `thought` the thought before the answer (null: none). Records of version 0.2 lack these. `hardware` is what the
    worker ran on, `tool_seconds` the time of the tools that the answer called (null: none).
    """

    prefill: int | None = None
    control_tokens: list[str] | None = None
    prompt_suffix: str | None = None
    thought: Thought | None = None
    prompt_token_ids: list[int] | None = None
    completion_token_ids: list[int] | None = None
    finish_reason: str | None = None
    usage: Usage = Usage()
    response: dict[str, Any] = Field(default_factory=dict)
    worker_id: str | None = None
    hardware: str | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    timing: Timing = Timing()
    tool_seconds: float | None = None


class EarlierTurn(Answered):
    """A turn of a conversation that goes on after its answer.

    `number` is that of the user's turn, 1 for the question; `answer` is the place of the answer in the conversation,
    `correct` whether the grader `number` took it as right when it was generated. `request` holds the fields of the
    request but the messages. `prefill` is the number of characters of the answer that were given to the model.
    """

    number: int
    answer: int
    correct: bool | None = None
    request: dict[str, Any] = Field(default_factory=dict)


class Asked(OpenRecord):
    """What was asked.

    `sample_id` is the name of the folder: the sample's id, with `-d2`, `-d3` … for further draws. `prompt_text` is what
    the messages of `request` were rendered to, with `date` as today.
    """

    experiment: str | None = None
    variant: str | None = None
    sample_id: str | None = None
    backend: str | None = None
    request: dict[str, Any] = Field(default_factory=dict)
    message_spans: MessageSpans | None = None
    prompt_text: str | None = None
    date: str | None = None


class AgentState(Answered, Asked):  # in this order the fields of `Asked` come first in the file
    """`agent_state.json`: the full request and response. `error` says why no server answered; null: one did.

    `hashes` are those of the folder's files; null in folders of version 0.2 and of other programs. Of a conversation of
    several turns, all this is of its last answer, to the user's turn of the number `turn`; `earlier_turns` are those
    before it. Records of a single conversation leave both out.
    """

    error: str | None = None
    hashes: Hashes | None = None
    turn: int | None = None
    earlier_turns: list[EarlierTurn] | None = None

    def values(self) -> dict[str, Any]:
        """Plain values in the order of the fields, without those of turns where there are none."""
        values = super().values()
        return {name: value for name, value in values.items() if value is not None or name not in TURN_FIELDS}

    @property
    def token_ids(self) -> list[int] | None:
        """Prompt and completion as one sequence; None where they were not recorded."""
        if self.prompt_token_ids is None or self.completion_token_ids is None:
            return None
        return self.prompt_token_ids + self.completion_token_ids

    def holds_answer(self, messages: list[Message]) -> bool:
        """Return whether a conversation goes on after the messages of the request, and ends with the assistant's.

        With a prefill, the last message of the request is the beginning of the answer.
        """
        opening = len(self.request.get("messages") or ()) - (self.prefill is not None)
        return len(messages) > opening and messages[-1]["role"] == "assistant"


class SampleData(OpenRecord):
    """The question of a trajectory and its gold answer."""

    question: str | None = None
    answer: str | int | float | None = None
    sample_id: str | None = None


class Metrics(OpenRecord):
    """The grade of a trajectory when it was generated, each in [0, 1]: `correctness` is the strict reading.

    All are null where no server answered.
    """

    correctness: float | None = None
    format: float | None = None
    efficiency: float | None = None


class AnswerRecord(OpenRecord):
    """`sample.json`: what was asked, what was answered, and how well.

    `sample_id` is the name of the folder, that of `sample_data` the sample's own id.
    """

    sample_data: SampleData = SampleData()
    sample_id: str | None = None
    variant: str | None = None
    metrics: Metrics = Metrics()
    extracted_answer: Any = None
    worker_id: str | None = None
    processing_time: float | None = None

    @property
    def scored_by(self) -> str | None:
        """The tool whose score `metrics` holds and which is not graded again; None: the completion is graded.

        An optional field of the file, which only imports write.
        """
        return (self.model_extra or {}).get("scored_by")


@dataclass(frozen=True)
class Trajectory:
    """A conversation, opening and answer, with what is known of how it came about.

    The answer is the assistant's last message; in a folder that another program made others may follow it, or there may
    be none. `state` and `outcome` are None where a folder lacks their files.
    """

    messages: list[Message]
    state: AgentState | None = None
    outcome: AnswerRecord | None = None

    @property
    def answer(self) -> Message | None:
        """The assistant's last message; None where there is none."""
        return next((message for message in reversed(self.messages) if message["role"] == "assistant"), None)

    @property
    def completion(self) -> str:
        """Text for the grader: what follows the thought, where the state has one.

        Otherwise the answer's content, or the separate reasoning where there is no content. Empty where an agent still
        called tools when its turns were used up.
        """
        if self.answer is None or self.is_unfinished:
            return ""
        return _graded_text(self.answer, None if self.state is None else self.state.thought)

    def completion_of(self, turn: EarlierTurn) -> str:
        """Text of an earlier answer for the grader, as `completion` is of the last one; empty where it calls tools."""
        if turn.finish_reason == CALLS:
            return ""
        return _graded_text(self.messages[turn.answer], turn.thought)

    @property
    def is_unfinished(self) -> bool:
        """Whether the last answer of an agent calls tools, as `conversation.max_turns` was reached."""
        return self.state is not None and self.state.turn is not None and self.state.finish_reason == CALLS

    @property
    def said(self) -> str:
        """What the model said last: its completion without the beginning that it was given."""
        given = None if self.state is None else self.state.prefill
        return self.completion[given or 0 :]

    @property
    def is_cut_off_in_thought(self) -> bool | None:
        """Whether the completion reached its limit within the thought; None where the state says nothing of it."""
        if self.state is None or self.state.thought is None or self.state.finish_reason is None:
            return None
        return self.state.thought.ended is None and self.state.finish_reason == "length"

    @property
    def failure(self) -> str | None:
        """Reason why no server answered, so that the assistant's message is empty; None for an answered request."""
        return None if self.state is None else self.state.error

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a trajectory's folder.

        Raises:
            DamagedError: the conversation is missing, a file is damaged, or an answer that the state has tokens of is
                missing; the message names the file.
        """
        messages = read_messages(folder / MESSAGES)
        state = AgentState.read_file(folder / STATE) if (folder / STATE).exists() else None
        outcome = AnswerRecord.read_file(folder / OUTCOME) if (folder / OUTCOME).exists() else None
        if state is not None and state.token_ids is not None and not state.holds_answer(messages):
            raise DamagedError(folder / MESSAGES, "the answer is missing")
        if state is not None and any(turn.answer >= len(messages) for turn in state.earlier_turns or ()):
            raise DamagedError(folder / MESSAGES, "the answer to an earlier turn is missing")
        return cls(messages, state, outcome)

    def write(self, folder: Path) -> None:
        """Write the files of a folder, the conversation last.

        Raises:
            OSError: one cannot be written.
        """
        messages = message_lines(self.messages)
        outcome = None if self.outcome is None else atomic.to_json(self.outcome.values())
        if self.state is not None:
            values = self.state.values()
            values["hashes"] = {
                **(values["hashes"] or Hashes().values()),
                "messages": hashlib.sha256(messages.encode()).hexdigest(),
                "outcome": None if outcome is None else hashlib.sha256(outcome.encode()).hexdigest(),
                "state": state_sha256(values),
            }
            atomic.write_text(folder / STATE, atomic.to_json(values, indent=None))
        if outcome is not None:
            atomic.write_text(folder / OUTCOME, outcome)
        atomic.write_text(folder / MESSAGES, messages)


def state_sha256(values: Mapping[str, Any]) -> str:
    """The hash of the plain values of an `agent_state.json`, without the hashes that it holds."""
    return content_sha256({key: value for key, value in values.items() if key != "hashes"})


def _graded_text(message: Message, thought: Thought | None) -> str:
    if thought is None:
        return message_text(message)
    return str(message.get("content") or "")[thought.answer :]


def message_text(message: Message) -> str:
    """The content of a message, or its separate reasoning where there is no content.

    Of content in parts, as OpenAI's API has it, the texts count, each from a line of its own.
    """
    for field in ("content", "reasoning_content", "reasoning"):
        content = message.get(field)
        if isinstance(content, list):
            texts = (part.get("text") if isinstance(part, dict) else part for part in content)
            content = "\n".join(text for text in texts if isinstance(text, str))
        if content:
            return str(content)
    return ""


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
        DamagedError: it is missing or empty, or a line is no message; the reason names the line.
    """
    try:
        lines = list(filled_lines(path.read_bytes()))
    except OSError as error:
        raise unreadable(path, error) from None
    if not lines:
        raise DamagedError(path, "it is empty")
    return [_message(path, number, line) for number, line in lines]


def _message(path: Path, number: int, line: bytes) -> Message:
    try:
        message = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"line {number}: {error}") from None
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise DamagedError(path, f"line {number} is no message")
    if (place := half_surrogate(message)) is not None:
        raise DamagedError(path, f"line {number} holds half a surrogate pair in {place}")
    return message


class Measured(Record):
    """A server's measurements of a trajectory, or the `error` that prevented them; `sha256` is the hash of all else."""

    error: str | None = None
    sha256: str | None = None

    @property
    def content_sha256(self) -> str:
        """The hash of everything but the hash."""
        return content_sha256({key: value for key, value in self.values().items() if key != "sha256"})

    def write(self, path: Path) -> None:
        """Write the file, with the fields in the order of version 0.2."""
        last = {"error": self.error, "sha256": self.content_sha256}
        atomic.write_json(path, {key: value for key, value in self.values().items() if key not in last} | last)


class Scores(Measured):
    """`scores.json`. Log-probabilities in nats.

    `gold` is the text that was forced after the prompt, `log_p_gold` the sum over its tokens under the edit.
    `perplexity` is the unedited model's on the answer, of so many `tokens`. `kl` has the divergence of the edited from
    the unedited model's distribution of the next token, for each of the answer's first tokens; zeros where nothing was
    edited. `sha256` is null in files of version 0.2.
    """

    gold: str | None = None
    gold_tokens: int | None = None
    log_p_gold: float | None = None
    tokens: int | None = None
    perplexity: float | None = None
    kl: list[float] | None = None


class GoldForm(Record):
    """One form of the gold answer: its text, how many of its tokens count, and their log-probabilities' sum in nats."""

    text: str
    tokens: int
    log_p: float


class GoldProbability(Measured):
    """`outcomes.json`: p(gold) and the options of one trajectory by teacher forcing, in nats.

    The model reads the first `context_tokens` tokens of the trajectory (`context_sha256` is their hash), which end
    where the prompt or, with `after` = thought, the thought does, then `lead`. `log_p_gold` is the logarithm of the sum
    of the probabilities of the `forms`, the last of which `worker_id` measured. `options` are those of a question in
    their order, each after `options_lead`; both are null where no grader asks for them. `reason` says why there is none
    although there is an answer, such as a thought without an end; `error` why no server measured it.
    """

    after: Literal["prompt", "thought"] | None = None
    context_tokens: int | None = None
    context_sha256: str | None = None
    lead: str | None = None
    forms: list[GoldForm] = Field(default_factory=list)
    log_p_gold: float | None = None
    worker_id: str | None = None
    reason: str | None = None
    options_lead: str | None = None
    options: list[GoldForm] | None = None

    def values(self) -> dict[str, Any]:
        """Plain values in the order of the fields, without `options` where no grader asks for them."""
        later = ("options_lead", "options")
        return {name: value for name, value in super().values().items() if value is not None or name not in later}


def tokens_sha256(ids: list[int]) -> str:
    """Return the hash of a sequence of tokens."""
    return content_sha256({"token_ids": ids})


class SampleFile(OpenRecord):
    """`samples/{sample}.json` of any folder.

    `question` is what is asked, options included where there are `choices`; `answer` is the gold answer: a number in
    canonical notation, the letter of a choice, or a text; null where there is none. `index` is its
    place in the permutation, `source` says where it came from. `group` names what it shares with other samples (its
    template or difficulty); null where it shares nothing, as in folders of the first version.
    """

    sample_id: str | None = None
    index: int | None = None
    question: str | None = None
    answer: str | int | float | None = None
    source: dict[str, Any] | None = None
    group: str | None = None
    choices: list[str] | None = None

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read `samples/{sample}.json`.

        Raises:
            DamagedError: the file is missing or damaged.
        """
        return cls.read_file(path)


class Sample(SampleFile):
    """One question of an experiment, complete."""

    sample_id: str
    index: int
    question: str
    answer: str | None = None
    source: dict[str, Any]

    @property
    def sha256(self) -> str:
        """The hash of its content; fields that are null do not enter, so that a later version may add some."""
        return content_sha256({key: value for key, value in self.values().items() if value is not None})

    def write(self, path: Path) -> None:
        """Write `samples/{sample}.json`."""
        atomic.write_json(path, self.values())
