"""The request that makes a trajectory: its messages, its prompt, its seed, and where its parts are."""

from __future__ import annotations

from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.conversation import AUTO, REQUIRED
from emoprobe.conversations.kinds import NextTurn
from emoprobe.conversations.rendering import DEFAULT_DATE, RenderedPrompt, Renderer, template_arguments
from emoprobe.conversations.variants import base_messages, opening_messages, turns_of, variant_text
from emoprobe.results.trajectory import Message, MessageSpans, Sample, Span
from emoprobe.text import hashed_number


def request_seed(seed: int, sample_id: str, draw: int = 1) -> int:
    """The sampling seed of a draw (from 1) of a sample, in [0, 2³¹), the same for all variants."""
    name = f"{seed}:{sample_id}" if draw == 1 else f"{seed}:{sample_id}:{draw}"
    return hashed_number(name, 31)


def continued_seed(seed: int) -> int:
    """The sampling seed of the rest of a completion whose thought used up its budget, in [0, 2³¹)."""
    return hashed_number(f"{seed}:continued", 31)


def turn_seed(seed: int, number: int) -> int:
    """The sampling seed of the answer to the user's turn of a number above 1, in [0, 2³¹)."""
    return hashed_number(f"{seed}:turn{number}", 31)


def chat_request(config: Config, model: str, variant: str, sample: Sample, draw: int = 1) -> dict[str, Any]:
    """The request of one draw (from 1) of one pair, with messages; draws of one ask differ in their seed alone.

    Raises:
        VariantError: the variant's transform failed, or its scramble names no variant with texts.
    """
    generation = config.generation
    body: dict[str, Any] = {
        "model": model,
        "messages": opening_messages(config, variant, sample.question, sample.index, draw),
        "max_tokens": generation.max_tokens,
        "temperature": generation.temperature,
        "top_p": generation.top_p,
        "seed": request_seed(config.experiment.seed, sample.sample_id, draw),
        "return_token_ids": True,
    }
    if generation.stop:
        body["stop"] = generation.stop
    if generation.chat_template:
        body["chat_template_kwargs"] = generation.chat_template
    return body


def turn_request(first: dict[str, Any], turn: NextTurn) -> dict[str, Any]:
    """The request of a later turn of a conversation.

    Args:
        first: the request of its first turn, as `chat_request` makes it.
        turn: the turn.
    """
    kept = {key: value for key, value in first.items() if key != "tool_choice"}
    return kept | {"messages": turn.messages, "seed": turn_seed(first["seed"], turn.number)}


def tool_choice(config: Config) -> dict[str, Any]:
    """Return the field of an agent's first request that has it call a tool; empty where the model decides."""
    choice = config.conversation.tool_choice
    if choice == AUTO:
        return {}
    return {"tool_choice": choice if choice == REQUIRED else {"type": "function", "function": {"name": choice}}}


def rendered_prompt(
    config: Config, renderer: Renderer, request: dict[str, Any], marks: MessageSpans | None = None
) -> RenderedPrompt:
    """The prompt of a request that `chat_request` made.

    Args:
        config: the experiment, whose date the chat template sees.
        renderer: the model's.
        request: the request.
        marks: the parts whose tokens are to be located.

    Raises:
        PromptError: the chat template refuses the messages.
    """
    messages, day = request["messages"], config.prompt.day
    given = template_arguments(request)
    arguments, suffix = renderer.thinking(config.generation.thinking_mode, messages, given, day)
    return renderer.render(messages, arguments, day, marks.values() if marks else None, suffix=suffix)


def sent_request(request: dict[str, Any], prompt_ids: list[int]) -> dict[str, Any]:
    """A request that `chat_request` made as servers get it, at `/v1/completions`: with tokens in place of messages."""
    kept = {key: value for key, value in request.items() if key not in ("messages", "chat_template_kwargs")}
    return kept | {"prompt": prompt_ids}


def sent_with_tools(config: Config, request: dict[str, Any], prompt: RenderedPrompt) -> dict[str, Any]:
    """A request with tools as vLLM gets it, at `/v1/chat/completions`, where its parsers are. It renders the prompt.

    It shows the renderer's date where the chat template takes one.
    """
    day = (config.prompt.day or DEFAULT_DATE).strftime("%d %b %Y")
    variables = {"date_string": day} | {key: value for key, value in prompt.arguments.items() if key != "tools"}
    begun = {} if prompt.prefill is None else {"add_generation_prompt": False, "continue_final_message": True}
    return request | {"chat_template_kwargs": variables} | begun


def conversation_spans(
    config: Config,
    variant: str,
    question: str,
    index: int,
    messages: list[Message],
    opening: int | None = None,
    draw: int = 1,
) -> MessageSpans:
    """Locate system text, prefix and question in a conversation, as `message_spans` does in its opening.

    A variant's text that is not in the opening is located in the first turn of the user that has it.

    Args:
        config: the experiment.
        variant: the variant.
        question: the sample's question.
        index: the sample's place in the permutation, from 0.
        messages: all messages up to the last answer.
        opening: how many of them come before the first answer; None: all.
        draw: which completion of the pair, from 1.
    """
    spans = message_spans(config, messages[:opening], question)
    text = variant_text(config, variant, index, draw, turns_of(config, variant)[0])
    if opening is not None and spans.prefix is None and text is not None:
        begins = config.variants[variant].placement.endswith("_prefix")
        for number, message in enumerate(messages[opening:], opening):
            content = message["content"]
            if message["role"] == "user" and (content.startswith(text) if begins else content.endswith(text)):
                start = 0 if begins else len(content) - len(text)
                return spans.model_copy(update={"prefix": (number, start, start + len(text))})
    return spans


def message_spans(config: Config, messages: list[Message], question: str) -> MessageSpans:
    """Locate system text, prefix and question in the opening messages.

    Each is (message, start, end) in characters of that message's content, or None where there is none. The question is
    in the last user message that holds it; earlier ones are examples. The prefix is what the variant added: the part
    of the system message, or of a user message, that is not in the message that every variant starts from. A transform
    that rewrote a message beyond recognition has no prefix.
    """
    base = {message["role"]: message["content"] for message in base_messages(config.prompt, question)}
    spans: dict[str, Span | None] = {"system": None, "prefix": None, "question": None}
    numbered = list(enumerate(messages))
    system = [entry for entry in numbered if entry[1]["role"] == "system"]
    user = [entry for entry in reversed(numbered) if entry[1]["role"] == "user"]
    for number, message in system + user:
        role, content = message["role"], message["content"]
        if spans[{"system": "system", "user": "question"}[role]] is not None:
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
    return MessageSpans(**spans)


def _added(content: str, original: str, at: int) -> tuple[int, int] | None:
    """The longer of what stands before and after the original in a message, without white space around it."""
    if original and at < 0:
        return None
    before, after = (content[:at], content[at + len(original) :]) if original else (content, "")
    part, offset = (before, 0) if len(before) >= len(after) else (after, at + len(original))
    text = part.strip()
    start = offset + part.find(text)
    return (start, start + len(text)) if text else None
