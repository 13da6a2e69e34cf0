"""What the explorer shows of a conversation: all messages, the parts that are marked, and how it was graded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from emoprobe.explorer.answers import answer_place
from emoprobe.graders import grading
from emoprobe.results.judgement import Comparison, read_judgement
from emoprobe.results.trajectory import AgentState, Message, MessageSpans, Trajectory, message_text

MAX_TEXT = 50_000
MAX_EXTRACTED = 40
MAX_REASON = 1_000
# Outcome of a trajectory → its letter in the index.
RIGHT, LENIENT, WRONG, NO_ANSWER, FAILED, UNGRADED = "rlwnfu"
Place = tuple[int, int, int]


@dataclass(frozen=True)
class ShownMessage:
    """A message: its text, at most 50,000 characters of it, and how many were left out.

    `thought` is the length of the thought at its beginning, `reasoning` a thought beside the text, `calls` the tool
    calls, each a name and its arguments.
    """

    role: str
    text: str
    left_out: int = 0
    thought: int = 0
    reasoning: str = ""
    calls: tuple[tuple[str, str], ...] = ()

    def values(self, number: int) -> list[Any]:
        """Return plain values: role, the number of the text, and what else there is."""
        extra = {"x": self.left_out, "h": self.thought, "g": self.reasoning, "c": self.calls}
        given = {key: value for key, value in extra.items() if value}
        return [self.role, number, *([given] if given else [])]


@dataclass(frozen=True)
class Conversation:
    """A conversation, its marked parts as (message, start, end) in characters, and facts to list.

    `response` is the number of the message that was graded; None where there is none. `judgements` are those of the
    judges: label, model, value as text (empty without one), and the judge's reason or why there is no value.
    """

    messages: list[ShownMessage]
    response: int | None = None
    tone: Place | None = None
    question: Place | None = None
    answer: Place | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    judgements: list[tuple[str, str, str, str]] = field(default_factory=list)

    def texts(self) -> Iterator[str]:
        """Texts that are this conversation's, to search in: the tone's and the model's."""
        if self.tone is not None:
            place, start, end = self.tone
            yield self.messages[place].text[start:end]
        if self.response is not None:
            for message in self.messages[self.response :]:
                yield message.text
                yield message.reasoning


def outcome(row: dict[str, Any]) -> str:
    """Return the letter of the outcome of a row of the table `trajectories` or `steering`."""
    lenient = row["lenient"] if "lenient" in row else row["correct_lenient"]
    if row.get("failure") is not None or (row.get("error") is not None and row["extraction"] is None):
        return FAILED
    if row["correct"] is None:
        return UNGRADED
    if row["correct"]:
        return RIGHT
    if lenient:
        return LENIENT
    return NO_ANSWER if row["extraction"] == "none" else WRONG


def read_conversation(folder: Path, row: dict[str, Any], choices: list[str] | None = None) -> Conversation:
    """Read a conversation.

    Args:
        folder: its folder.
        row: its row of the table `trajectories` or `steering`.
        choices: the options of a multiple-choice question.

    Raises:
        DamagedError: a file is damaged; the message names it.
    """
    trajectory = Trajectory.read(folder)
    state = trajectory.state or AgentState()
    response = _response(trajectory)
    thoughts = _earlier_thoughts(trajectory, response)
    messages = [_shown(message, thoughts.get(place, 0)) for place, message in enumerate(trajectory.messages)]
    answer, extracted = None, None
    if response is not None:
        thought = _thought_length(trajectory)
        messages[response] = _shown(trajectory.messages[response], thought)
        extracted = row.get("extracted") or _extracted(trajectory, row, choices)
        content, completion = message_text(trajectory.messages[response]), trajectory.completion
        if extracted is not None and content.endswith(completion):
            place = answer_place(completion, extracted, tuple(choices or ()))
            before = len(content) - len(completion)
            answer = None if place is None else (response, before + place[0], before + place[1])
    spans = state.message_spans or MessageSpans()
    return Conversation(
        messages=messages,
        response=response,
        tone=_inside(messages, spans.prefix),
        question=_inside(messages, spans.question),
        answer=_inside(messages, answer),
        facts=_facts(row, state, extracted, answered=response is not None),
    )


def shown_judgement(path: Path) -> tuple[str, str, str, str]:
    """Return what is shown of a judgement, see `Conversation.judgements`.

    Raises:
        DamagedError: it is damaged.
    """
    made = read_judgement(path)
    value = made.value if made.value is None or isinstance(made.value, str) else json.dumps(made.value)
    reason = made.reason
    if isinstance(made, Comparison) and made.value is not None:
        value = f"preferred to {made.compare_with}: {made.value:.0%}"
        order = zip(("as A", "as B"), made.orders, strict=True)
        reason = "; ".join(f"{place}: {', '.join(filter(None, (str(one.value), one.reason)))}" for place, one in order)
    return made.judge, made.model, value or "", (reason or made.unusable or made.error or "")[:MAX_REASON]


def _extracted(trajectory: Trajectory, row: dict[str, Any], choices: list[str] | None) -> str | None:
    """The answer of a steered trajectory, whose table does not have it."""
    if "correct_lenient" not in row or row["extraction"] is None:
        return None
    return grading.extract(trajectory.completion, letters=choices is not None, choices=choices).notation


def _response(trajectory: Trajectory) -> int | None:
    places = [place for place, message in enumerate(trajectory.messages) if message is trajectory.answer]
    return places[0] if places and trajectory.failure is None else None


def _thought_length(trajectory: Trajectory) -> int:
    """Return how many characters of the graded message come before its answer: by the record, or by the markers."""
    if trajectory.state is not None and trajectory.state.thought is not None:
        return trajectory.state.thought.answer
    return _marked_thought(trajectory.completion)


def _marked_thought(completion: str) -> int:
    rest = grading.visible(completion)
    return len(completion) - len(rest) if rest and completion.endswith(rest) else 0


def _earlier_thoughts(trajectory: Trajectory, response: int | None) -> dict[int, int]:
    """Return the places of the model's other messages → the length of the thought at their beginning."""
    turns = (trajectory.state.earlier_turns if trajectory.state is not None else None) or []
    recorded = {turn.answer: turn.thought.answer for turn in turns if turn.thought is not None}
    texts = {
        place: message_text(message)
        for place, message in enumerate(trajectory.messages)
        if message["role"] == "assistant" and place != response and message.get("content")
    }
    return {place: recorded.get(place) or _marked_thought(text) for place, text in texts.items()}


def _shown(message: Message, thought: int = 0) -> ShownMessage:
    content = message.get("content")
    text = message_text(message) if content else ""
    # White space between a thought and its answer is no part of what is shown first.
    thought += len(text[thought:]) - len(text[thought:].lstrip()) if thought else 0
    reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
    return ShownMessage(
        role=message["role"],
        text=text[:MAX_TEXT],
        left_out=max(0, len(text) - MAX_TEXT),
        thought=min(thought, MAX_TEXT),
        reasoning=str(reasoning)[:MAX_TEXT],
        calls=tuple(_calls(message.get("tool_calls"))),
    )


def _calls(calls: Any) -> Iterator[tuple[str, str]]:
    for call in calls if isinstance(calls, list) else ():
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            yield "tool call", json.dumps(call, ensure_ascii=False)[:MAX_TEXT]
            continue
        arguments = function.get("arguments")
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        yield str(function.get("name")), text[:MAX_TEXT]


def _inside(messages: list[ShownMessage], place: Place | None) -> Place | None:
    """Return a place if it lies in the shown text of its message."""
    if place is None or not 0 <= place[0] < len(messages):
        return None
    return place if 0 <= place[1] < place[2] <= len(messages[place[0]].text) else None


def _facts(row: dict[str, Any], state: AgentState, extracted: str | None, *, answered: bool) -> dict[str, Any]:
    """What is listed beside a conversation, without what is unknown."""
    usage, timing = state.usage, state.timing
    facts = {
        "extracted": extracted if extracted is None else extracted[:MAX_EXTRACTED],
        "extraction": row["extraction"],
        "compliant": row["compliant"],
        "finish": state.finish_reason,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": row["completion_tokens"],
        "thought_tokens": row.get("thought_tokens"),
        "seconds": row.get("seconds") if timing.seconds is None else timing.seconds,
        "started": row.get("started") or timing.started,
        "worker": row.get("worker") or state.worker_id,
        "hardware": row.get("hardware") or state.hardware,
        "attempts": row.get("attempts"),
        "temperature": state.request.get("temperature"),
        "seed": state.request.get("seed"),
        "log_p_gold": row.get("log_p_gold"),
        "perplexity": row.get("perplexity"),
        "failure": None if answered else (row.get("failure") or row.get("error") or "the record has no answer"),
    }
    return {key: value for key, value in facts.items() if value is not None}
