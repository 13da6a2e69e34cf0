"""Check the prompts of an experiment before anything is generated, and describe what a chat template makes of them.

The check renders every variant, with all of its texts, for a handful of questions. It takes a tokenizer and a chat
template, and neither the data nor the weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import count, islice
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.capture import THOUGHT_POSITIONS
from emoprobe.config.section import CONTROL
from emoprobe.conversations.kinds import longest_conversation
from emoprobe.conversations.rendering import DEFAULT_DATE, PromptError, RenderedPrompt, Renderer, TemplateError
from emoprobe.conversations.requests import conversation_spans, rendered_prompt
from emoprobe.conversations.variants import (
    ROLES,
    VariantError,
    base_messages,
    opening_messages,
    variant_texts,
    with_prefill,
)
from emoprobe.results.trajectory import Message, MessageSpans

QUESTIONS = ("What is 2 + 3?", "A box holds 12 eggs. How many eggs are in 4 boxes?", "Which number comes after 41?")
FEW_TOKENS = 1024  # below which a thought hardly leaves room for an answer
MARKUP = re.compile(r"<[^<>\n]*>|\[/?[A-Z_]+\]|\{(?:system|developer|user|assistant|tool)\}")


def check_prompts(config: Config, renderer: Renderer) -> list[str]:
    """Return what is wrong with the prompts of an experiment, one line a problem: `section.key: what and what to do`.

    Transforms that fail on made-up questions are left to the run.
    """
    if not renderer.has_template:
        return [
            f"model.source = {config.model.source!r}: the model has no chat template; choose one that was tuned to "
            "follow instructions, or put a chat_template.jinja into its directory"
        ]
    number = max(len(QUESTIONS), *(len(_texts(config, name)) for name in config.variants))
    problems: dict[str, None] = dict.fromkeys(_thinking(config, renderer))
    prompts: dict[tuple[tuple[int, ...], ...], tuple[str, list[list[Message]]]] = {}
    for name in config.variants:
        rendered, opened = [], []
        try:
            for messages, spans in islice(_conversations(config, name), number):
                prompt = _rendered(config, renderer, messages, spans)
                lines = [_left_out(config, name, part) for part in prompt.left_out]
                lines += _without_thought(config, name, prompt)
                problems |= dict.fromkeys(lines)
                if lines:
                    break
                rendered.append(tuple(prompt.token_ids))
                opened.append(messages)
            else:
                twin = prompts.setdefault(tuple(rendered), (name, opened))
                if twin[0] != name:
                    problems[_twins(name, twin[0], same=twin[1] == opened)] = None
        except VariantError:
            continue  # named by the checks of variants
        except TemplateError as error:
            problems[_refused(config, renderer, name, messages, str(error))] = None
        except PromptError as error:
            problems[f"model.source = {config.model.source!r}: {error}"] = None
    return list(problems)


def same_prompts(config: Config, renderer: Renderer, other: Renderer) -> bool:
    """Return whether two renderers make the same prompts of an experiment."""
    for name in config.variants:
        for messages, spans in islice(_conversations(config, name), max(len(QUESTIONS), len(_texts(config, name)))):
            if _rendered(config, renderer, messages, spans) != _rendered(config, other, messages, spans):
                return False
    return True


def describe_prompt(config: Config, renderer: Renderer) -> dict[str, Any]:
    """Return what `metadata.json` says of the prompts.

    `date` is what the chat template takes for today. `frame` is the prompt of control, with the role of each message in
    braces in place of its content; `added` is the text in it that the template adds, and `control_tokens` are what the
    model reads as markup wherever a text writes it out.
    """
    messages = with_prefill(config, CONTROL, base_messages(config.prompt, QUESTIONS[0]))
    marked = [message | {"content": f"{{{message['role']}}}"} for message in messages]
    frame = rendered_prompt(config, renderer, _request(config, marked)).text
    return {
        "date": (config.prompt.day or DEFAULT_DATE).isoformat(),
        "frame": frame,
        "added": _added(frame, renderer),
        "control_tokens": sorted(renderer.vocabulary.control),
    }


def _texts(config: Config, name: str) -> list[str]:
    try:
        return variant_texts(config, name)
    except VariantError:
        return []


def _conversations(config: Config, name: str) -> Iterator[tuple[list[Message], MessageSpans]]:
    """All messages of a variant that a model is sent for ever more questions, which take its texts in turn.

    Raises:
        VariantError: its transform fails.
    """
    for index in count():
        question = QUESTIONS[index % len(QUESTIONS)]
        messages = longest_conversation(config, name, question, index).messages
        opening = None
        if config.conversation.kind != "single":
            opening = len(opening_messages(config, name, question, index))
        yield messages, conversation_spans(config, name, question, index, messages, opening)


def _rendered(config: Config, renderer: Renderer, messages: list[Message], spans: MessageSpans) -> RenderedPrompt:
    return rendered_prompt(config, renderer, _request(config, messages), spans)


def _request(config: Config, messages: list[Message]) -> dict[str, Any]:
    return {"messages": messages, "chat_template_kwargs": config.generation.chat_template}


def thinking_warnings(config: Config, renderer: Renderer) -> list[str]:
    """Return why completions may end within a thought, one line each: no error, as a thought may be short."""
    most = config.generation.max_tokens
    if renderer.markers is None or config.generation.thinking_mode == "off" or most >= FEW_TOKENS:
        return []
    try:
        messages = with_prefill(config, CONTROL, base_messages(config.prompt, QUESTIONS[0]))
        prompt = rendered_prompt(config, renderer, _request(config, messages))
    except PromptError:
        return []  # `check_prompts` reports it
    if prompt.in_thought is False:
        return []
    return [
        f"generation.max_tokens = {most}: the chat template of {config.model.source} knows thinking, and thoughts take "
        f"hundreds or thousands of tokens; a completion that ends within one has no answer. Set it to {FEW_TOKENS} or "
        "more, or generation.thinking: off"
    ]


def _thinking(config: Config, renderer: Renderer) -> Iterator[str]:
    """Yield why the model cannot think as the configuration asks for."""
    mode, markers = config.generation.thinking_mode, renderer.markers
    wanted = [position for position in _positions(config) if position in THOUGHT_POSITIONS]
    if mode == "on" and markers is None:
        yield (
            f"generation.thinking = {_shown(config)}: the chat template of {config.model.source} knows no thinking "
            "(neither <think> nor the channels of gpt-oss, as tokens); remove the key, or choose a model that thinks"
        )
    elif wanted and (markers is None or mode == "off"):
        why = "generation.thinking is off" if markers else f"the chat template of {config.model.source} knows none"
        yield f"capture.positions = {wanted[0]!r}: is a position of the thought, and {why}; remove it"


def _positions(config: Config) -> list[int | str]:
    positions = config.capture.positions
    return positions if config.capture.enabled and isinstance(positions, list) else []


def _shown(config: Config) -> str:
    budget = config.generation.thinking_budget
    return "on" if budget is None else f"{{budget: {budget}}}"


def _without_thought(config: Config, name: str, prompt: RenderedPrompt) -> Iterator[str]:
    """Yield why no thought can follow a prompt although one is asked for."""
    if prompt.in_thought is not False and (prompt.prefill is None or prompt.in_thought):
        return
    why = "begins the answer" if prompt.prefill is not None else "ends after an empty thought"
    if config.generation.thinking_mode == "on":
        yield (
            f"generation.thinking = {_shown(config)}: the prompt of the variant {name} {why}, so that no thought "
            "follows; remove the key, or what begins the answer"
        )
    elif prompt.in_thought is False and config.generation.thinking_mode is None:
        for position in _positions(config):
            if position in THOUGHT_POSITIONS:
                yield (
                    f"capture.positions = {position!r}: the prompt of the variant {name} {why}, so that no thought "
                    "follows; set generation.thinking: on, or remove the position"
                )
                return


def _left_out(config: Config, name: str, part: str) -> str:
    if part == "prefix":
        variant = config.variants[name]
        key = "transform" if variant.transform is not None else f"placement = {variant.placement!r}"
        return (
            f"variants.{name}.{key}: the chat template of {config.model.source} leaves this text out of the prompt, so "
            "that the model would never see it; place it with user_prefix or user_suffix"
        )
    if part == "system":
        return (
            f"prompt.system: the chat template of {config.model.source} leaves the system message out of the prompt; "
            "set prompt.system: null, and say what it says in prompt.template"
        )
    return f"variants.{name}: the chat template of {config.model.source} leaves the question out of the prompt"


def _twins(name: str, other: str, *, same: bool) -> str:
    why = (
        "both open the conversation with the same messages; change or remove one"
        if same
        else "the chat template leaves out what differs between them; place the text elsewhere"
    )
    return f"variants.{name}: its prompts are those of {other}, token for token: {why}"


def _refused(config: Config, renderer: Renderer, name: str, messages: list[Message], error: str) -> str:
    """Return why a template refuses messages, and what to do."""
    model = config.model.source
    others = [message for message in messages if message["role"] != "system"]
    if len(others) < len(messages):
        try:
            renderer.render(others, config.generation.chat_template, config.prompt.day)
        except PromptError:
            pass
        else:
            why = f"the chat template of {model} refuses a system message ({error})"
            if config.prompt.system is not None:
                return f"prompt.system: {why}; set prompt.system: null, and say what it says in prompt.template"
            key = "transform" if config.variants[name].transform is not None else "placement"
            return f"variants.{name}.{key}: {why}; place the text with user_prefix or user_suffix"
    roles = ", ".join(str(message["role"]) for message in messages)
    return (
        f"variants.{name}: the chat template of {model} refuses its messages (roles: {roles}): {error}; change "
        "prompt.examples, the prefill, the variant's transform or generation.chat_template"
    )


def _added(frame: str, renderer: Renderer) -> list[str]:
    """The text in a frame that is neither markup, nor the name of a role, nor the place of a message."""
    pattern = "|".join(map(re.escape, sorted(renderer.vocabulary.control, key=len, reverse=True)))
    found: list[str] = []
    for part in re.split(f"{pattern}|{MARKUP.pattern}" if pattern else MARKUP, frame):
        lines = [line.strip() for line in part.split("\n")]
        kept = [line for line in lines if line.rstrip(":").lower() not in (*ROLES, "model", "human")]
        text = "\n".join(kept).strip()
        if re.search(r"\w", text) and text not in found:
            found.append(text)
    return found
