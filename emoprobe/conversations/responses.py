"""From a server's response to the record of a trajectory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.conversations.rendering import DEFAULT_DATE, RenderedPrompt, Renderer
from emoprobe.conversations.requests import conversation_spans
from emoprobe.conversations.samples import draw_id
from emoprobe.conversations.thoughts import ThoughtMarkers
from emoprobe.graders import grading
from emoprobe.results.trajectory import (
    CALLS,
    AgentState,
    Answered,
    AnswerRecord,
    Attempt,
    EarlierTurn,
    Hashes,
    Message,
    Metrics,
    Sample,
    SampleData,
    Thought,
    Timing,
    Trajectory,
    Usage,
)
from emoprobe.text import half_surrogate

BUDGET_REACHED = "thinking_budget_reached"  # a choice whose thought was ended by its budget
TOKENS = ("prompt_token_ids", "token_ids")  # the fields of a response that a record keeps by themselves


class ResponseError(ValueError):
    """A server's answer that is no completion; another server may do better."""


@dataclass(frozen=True)
class Delivery:
    """Origin of a response: its worker, attempts, time and hardware."""

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
    if not all(isinstance(ids, list) and all(type(token) is int for token in ids) for ids in (tokens, prompt)):
        raise ResponseError(f"the answer has token ids that are no whole numbers: {str(tokens)[:200]}")
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
    if choice.get("finish_reason") not in ("stop", "length", CALLS):
        raise ResponseError(f"the completion did not end properly (finish_reason {choice.get('finish_reason')!r})")
    if usage != len(tokens):
        raise ResponseError(f"the completion has {len(tokens)} token ids but reports {usage} tokens")
    return dict(response)


def as_completion(response: Any, plain: Callable[[Sequence[int]], str]) -> Any:
    """Return a chat completion of vLLM in the form of a completion, with the message beside its text.

    The text of an answer that calls tools is that of all of its tokens.

    Args:
        response: the server's; one that is no chat completion is returned as it is.
        plain: from tokens to text, as servers do it.
    """
    try:
        choice = response["choices"][0]
        message, ids = choice["message"], choice["token_ids"]
        shown = {"text": message.get("content") or "", "prompt_token_ids": response["prompt_token_ids"]}
        if calls := message.get("tool_calls"):
            if not all(isinstance(call["function"], dict) for call in calls):
                return response
            shown |= {"text": plain(ids), "finish_reason": CALLS}
    except (KeyError, IndexError, TypeError, AttributeError):
        return response
    return response | {"choices": [choice | shown]}


def completed(
    config: Config,
    variant: str,
    sample: Sample,
    request: dict[str, Any],
    prompt: RenderedPrompt,
    response: dict[str, Any],
    delivery: Delivery,
    *,
    renderer: Renderer | None = None,
    draw: int = 1,
    turn: int = 1,
    before: Trajectory | None = None,
) -> Trajectory:
    """Grade a response that `check_response` accepted, and put everything that is known of it together.

    The answer is the completion, after the prefill where the opening ends with one, and without the thought where
    `generation.thinking` is set.

    Args:
        config: the experiment.
        variant: the variant.
        sample: the question.
        request: what `chat_request` made.
        prompt: what it was rendered to.
        response: the server's.
        delivery: how it came about.
        renderer: the model's, which knows the markers of thoughts; None: the model does not think.
        draw: which completion of the pair, from 1.
        turn: number of the user's turn that is answered.
        before: the conversation up to the answer before; None: this is the first.
    """
    choice, usage = response["choices"][0], response["usage"]
    message, thought = _message(config, prompt, choice, renderer)
    if choice["finish_reason"] == CALLS:
        message |= _calls(prompt, choice["message"], turn)
    state = _state(config, variant, sample, request, prompt, delivery.attempts, draw, turn, before).model_copy(
        update={
            "prefill": _begun(prompt, message),
            "thought": thought,
            "prompt_token_ids": prompt.token_ids,
            "completion_token_ids": choice["token_ids"],
            "finish_reason": choice["finish_reason"],
            "usage": Usage(**{key: usage.get(key) for key in Usage.model_fields}),
            "response": {
                **{key: value for key, value in response.items() if key not in TOKENS and key != "choices"},
                "choices": [{key: value for key, value in choice.items() if key not in TOKENS}],
            },
            "worker_id": delivery.worker_id,
            "hardware": delivery.hardware,
            "timing": Timing(started=delivery.started, seconds=round(delivery.seconds, 4)),
        }
    )
    made = Trajectory([*_opening(request), message], state)
    return replace(made, outcome=graded(config, variant, sample, made, delivery, draw))


def graded(
    config: Config, variant: str, sample: Sample, made: Trajectory, delivery: Delivery, draw: int = 1
) -> AnswerRecord:
    """Grade a trajectory whose state is complete."""
    assert made.state is not None
    grade = grading.grade_if_gold(
        made.completion, sample.answer, finished=made.state.finish_reason != "length", choices=sample.choices
    )
    tokens = made.state.usage.completion_tokens
    efficiency = None if tokens is None else round(grading.efficiency(tokens, config.generation.max_tokens), 6)
    return recorded_outcome(variant, sample, draw).model_copy(
        update={
            "metrics": Metrics(
                correctness=None if grade is None else float(grade.correct),
                format=None if grade is None else float(grade.compliant),
                efficiency=efficiency,
            ),
            "extracted_answer": None if grade is None else grade.answer,
            "worker_id": delivery.worker_id,
            "processing_time": round(delivery.seconds, 4),
        }
    )


def _message(
    config: Config, prompt: RenderedPrompt, choice: dict[str, Any], renderer: Renderer | None
) -> tuple[Message, Thought | None]:
    """The assistant's message, and where its thought is.

    With `generation.thinking` the thought is the message's `reasoning_content`; else the content holds it as the server
    returned it.
    """
    prefill, text, ids = prompt.prefill or "", choice["text"], choice["token_ids"]
    message: Message = {"role": "assistant", "content": prefill + text}
    if renderer is None or renderer.markers is None:
        return message, None
    divided = renderer.markers.divide(ids, opened=prompt.in_thought)
    if divided.thought is None and not divided.answer:
        return message, None
    start, end = divided.thought or (0, 0)
    at, ended = len(text), None
    if divided.answer is not None:
        at = _place(text, ids[: divided.answer], renderer, renderer.markers)
        ended = "budget" if choice.get(BUDGET_REACHED) else "model"
    if ended == "budget":  # what closes the thought is not the model's
        end = start + (config.generation.thinking_budget or end)
    thought = renderer.plain(ids[start:end])
    begin = len(prompt.token_ids) + start
    tokens = (begin, begin + end - start if thought.strip() else begin)
    if config.generation.thinking is None:
        return message, Thought(tokens=tokens, ended=ended, answer=len(prefill) + at)
    # A thought that the prefill begins is part of it.
    begun = prefill.rpartition(renderer.markers.family.begin)[2] if prompt.in_thought else ""
    message = {"role": "assistant", "content": text[at:], "reasoning_content": begun + thought}
    return message, Thought(tokens=tokens, ended=ended)


def _calls(prompt: RenderedPrompt, message: Message, turn: int) -> Message:
    """Return the content and the tool calls of a message as the server's parser divided them.

    Calls are numbered, as the ids that vLLM gives them are random. Templates of Mistral need 9 letters and digits.
    """
    calls = [
        {"id": f"call{turn:02}{number:03}", "type": "function", "function": dict(call["function"])}
        for number, call in enumerate(message["tool_calls"], 1)
    ]
    return {"content": (prompt.prefill or "") + (message.get("content") or ""), "tool_calls": calls}


def _place(text: str, before: list[int], renderer: Renderer, markers: ThoughtMarkers) -> int:
    """The place in a completion's text, which may be cut at a string of `generation.stop`, after its first tokens."""
    for shown in (renderer.plain(before), renderer.vocabulary.decode(before)):
        if text.startswith(shown):
            return len(shown)
    # A server that decodes in another way.
    return text.rfind(markers.family.answer) + len(markers.family.answer) if markers.family.answer in text else 0


def _begun(prompt: RenderedPrompt, message: Message) -> int | None:
    """Return how many characters of the answer the prefill is; none of them where it belongs to the thought."""
    if prompt.prefill is None:
        return None
    return len(prompt.prefill) if message["content"].startswith(prompt.prefill) else 0


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
    turn: int = 1,
    before: Trajectory | None = None,
) -> Trajectory:
    """The record of a request that no server answered; `turn` and `before` are as for `completed`.

    The conversation ends with an empty message of the assistant and holds nothing that differs between runs;
    `agent_state.json` has the error and every attempt, `sample.json` no metrics.
    """
    state = _state(config, variant, sample, request, prompt, attempts, draw, turn, before)
    state = state.model_copy(update={"error": error})
    return Trajectory(
        [*_opening(request), {"role": "assistant", "content": ""}], state, recorded_outcome(variant, sample, draw)
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
    turn: int,
    before: Trajectory | None,
) -> AgentState:
    """Return the state of a request before its answer."""
    of_turns, opening = turn_fields(config, turn, before)
    variables = {key: value for key, value in prompt.arguments.items() if key != "tools"}
    asked = request | ({"chat_template_kwargs": variables} if variables else {})
    return AgentState(
        experiment=config.experiment.name,
        variant=variant,
        sample_id=draw_id(sample.sample_id, draw),
        backend=config.generation.backend,
        request=asked,
        message_spans=conversation_spans(
            config, variant, sample.question, sample.index, request["messages"], opening, draw
        ),
        prompt_text=prompt.text,
        date=(config.prompt.day or DEFAULT_DATE).isoformat(),
        control_tokens=list(prompt.control_tokens) or None,
        prompt_suffix=prompt.suffix or None,
        attempts=attempts,
        hashes=Hashes(sample=sample.sha256),
        **of_turns,
    )


def turn_fields(config: Config, turn: int, before: Trajectory | None) -> tuple[dict[str, Any], int | None]:
    """Return the fields of turns of a state, none for a single conversation, and the messages before the first answer.

    Args:
        config: the experiment.
        turn: number of the user's turn that is answered.
        before: the conversation up to the answer before; None: this is the first.
    """
    earlier = [] if before is None else _turns(before)
    of_turns = {} if config.conversation.kind == "single" else {"turn": turn, "earlier_turns": earlier}
    return of_turns, earlier[0].answer if earlier else None


def _turns(conversation: Trajectory) -> list[EarlierTurn]:
    """The turns of a conversation that goes on, of which all but the last are earlier ones already."""
    state, outcome = conversation.state, conversation.outcome
    assert state is not None
    assert state.turn is not None
    assert outcome is not None
    values = {name: getattr(state, name) for name in Answered.model_fields}
    request = {key: value for key, value in state.request.items() if key not in ("messages", "tools")}
    grade, answer = outcome.metrics.correctness, len(conversation.messages) - 1
    if state.finish_reason == CALLS:
        grade = None
    correct = None if grade is None else grade == 1.0
    last = EarlierTurn(**values | {"number": state.turn, "answer": answer, "correct": correct, "request": request})
    return [*(state.earlier_turns or ()), last]


def recorded_outcome(variant: str, sample: Sample, draw: int) -> AnswerRecord:
    """Return the question of a trajectory without an answer."""
    return AnswerRecord(
        sample_data=SampleData(question=sample.question, answer=sample.answer, sample_id=sample.sample_id),
        sample_id=draw_id(sample.sample_id, draw),
        variant=variant,
    )
