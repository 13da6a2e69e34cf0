"""Variants: how an emotional text, or a function, changes the opening messages of a conversation."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.prompt import Prompt
from emoprobe.functions import load_function, raised_by, source_of
from emoprobe.graders.answers import with_options
from emoprobe.results.trajectory import Message
from emoprobe.text import half_surrogate

ROLES = ("system", "developer", "user", "assistant", "tool")
SEPARATOR = "\n\n"


class VariantError(ValueError):
    """A variant that cannot open a conversation; the message names it and its key."""


class TransformError(VariantError):
    """A transform that cannot be imported, raised, or returned something that is no list of messages."""


def base_messages(prompt: Prompt, question: str) -> list[Message]:
    """The messages that every variant starts from: the system message, if any, the examples, and the question.

    Examples are earlier turns; the template makes their questions what it makes of every other.
    """
    messages = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    for example in prompt.examples:
        asked = with_options(example.question, example.choices)
        messages.append({"role": "user", "content": prompt.template.format(question=asked)})
        messages.append({"role": "assistant", "content": example.answer})
    return [*messages, {"role": "user", "content": prompt.template.format(question=question)}]


def variant_texts(config: Config, name: str) -> list[str]:
    """The texts of a variant, as they are placed; empty where it adds none.

    Raises:
        VariantError: it scrambles a variant that does not exist or has no texts.
    """
    variant = config.variants[name]
    if variant.scramble is None:
        return variant.paraphrases
    source = config.variants.get(variant.scramble)
    if source is None:
        raise VariantError(
            f"variants.{name}.scramble = {variant.scramble!r}: is no variant (there are: {', '.join(config.variants)})"
        )
    if not source.paraphrases:
        raise VariantError(
            f"variants.{name}.scramble = {variant.scramble!r}: has no text or texts of its own to scramble"
        )
    return [scrambled(text, config.experiment.seed) for text in source.paraphrases]


def scrambled(text: str, seed: int) -> str:
    """The words of a text in a random order that follows from seed and text; another order wherever there is one."""
    words = text.split()
    shuffled = list(words)
    generator = random.Random(f"{seed}:{text}")
    while len(set(words)) > 1 and shuffled == words:
        generator.shuffle(shuffled)
    return " ".join(shuffled)


def paraphrase_index(config: Config, name: str, index: int, draw: int = 1) -> int | None:
    """Return the index of the variant's text for the sample at `index` (from 0) of the permutation; None for no text.

    All draws of one ask get the same text (`variants.NAME.asks`). Of a text that is listed several times it is the
    first index, since the number of texts decides how far a result holds for other ones.
    """
    texts = variant_texts(config, name)
    if not texts:
        return None
    return texts.index(texts[_text_number(config, len(texts), index, ask_of(config, name, draw))])


def asks_of(config: Config, name: str) -> int:
    """Return how often a variant asks each question; 1 for one that the config does not contain."""
    return config.variants[name].asks if name in config.variants else 1


def ask_of(config: Config, name: str, draw: int) -> int:
    """Return which ask of a variant, from 0, a draw (from 1) belongs to."""
    return (draw - 1) // config.generation.draws if asks_of(config, name) > 1 else 0


def _text_number(config: Config, texts: int, index: int, ask: int) -> int:
    """Return which of so many texts a sample gets; variants of as many texts give it those of the same number."""
    block, place = divmod(index, texts)
    place = (place + text_shift(texts, ask)) % texts
    if config.prompt.text_order == "cyclic":
        return place
    return _permutation(config.experiment.seed, texts, block)[place]


@cache
def text_shift(texts: int, ask: int) -> int:
    """Return how far along the order of the texts an ask (from 0) is from the first one.

    Each ask is in the middle of the largest gap between those before it: so a question never has a text twice, more
    asks change nothing for those before them, and few questions share a text.

    Raises:
        ValueError: there are fewer texts than asks.
    """
    if ask >= texts:
        raise ValueError(f"{ask + 1} asks need as many texts, and there are {texts}")
    shifts = [0]
    for _ in range(ask):
        ends = [*sorted(shifts), texts]
        gap, start = max((end - start, -start) for start, end in pairwise(ends))
        shifts.append(-start + gap // 2)
    return shifts[-1]


@cache
def _permutation(seed: int, texts: int, block: int) -> list[int]:
    """A random order in which even places hold even numbers, as the halves of the features divide both by parity."""
    generator = random.Random(f"{seed}:{texts}:{block}")
    order = list(range(texts))
    for parity in (0, 1):
        numbers = order[parity::2]
        generator.shuffle(numbers)
        order[parity::2] = numbers
    return order


def opening_messages(config: Config, name: str, question: str, index: int, draw: int = 1) -> list[Message]:
    """The messages that open the conversation of one variant on one sample.

    With a prefill, the last one is the assistant's and begins the answer.

    Args:
        config: the experiment.
        name: the variant.
        question: the sample's question.
        index: the sample's place in the permutation, from 0, which decides the text (`prompt.text_order`).
        draw: which completion of the pair, from 1, which decides it where the variant is asked several times.

    Raises:
        VariantError: the variant's transform failed, or begins an answer that a prefill begins as well; or its scramble
            names no variant with texts.
    """
    messages = _unbegun_messages(config, name, question, index, draw)
    if prefill_of(config, name) is not None and messages[-1]["role"] == "assistant":
        raise VariantError(begun_twice(config, name))
    return with_prefill(config, name, messages)


def begun_twice(config: Config, name: str) -> str:
    """Return why a transform that begins the answer and a prefill exclude each other."""
    return (
        f"variants.{name}.transform: {config.variants[name].transform} ends with a message of the assistant, which "
        "begins the answer, and so does the prefill; remove one of the two"
    )


def prefill_of(config: Config, name: str) -> str | None:
    """Return the text that begins the answers of a variant; None: none, unless its transform adds one."""
    own = config.variants[name].prefill
    return config.prompt.prefill if own is None else own


def with_prefill(config: Config, name: str, messages: list[Message]) -> list[Message]:
    """Return messages with the variant's prefill, if any, after them."""
    prefill = prefill_of(config, name)
    return messages if prefill is None else [*messages, {"role": "assistant", "content": prefill}]


def _unbegun_messages(config: Config, name: str, question: str, index: int, draw: int = 1) -> list[Message]:
    """The opening without the prefill of the config."""
    variant = config.variants[name]
    prompt = config.prompt
    if variant.template is not None:
        prompt = prompt.model_copy(update={"template": variant.template})
    messages = base_messages(prompt, question)
    if variant.transform is not None:
        return apply_transform(name, variant.transform, messages)
    text = variant_text(config, name, index, draw, 1)
    return messages if text is None else place(messages, text, variant.placement)


def variant_text(config: Config, name: str, index: int, draw: int, turn: int) -> str | None:
    """Return the text that a variant adds to one turn of the user; None where it adds none.

    Args:
        config: the experiment.
        name: the variant.
        index: the sample's place in the permutation, from 0.
        draw: which completion of the pair, from 1.
        turn: number of the user's turn, 1 for the question.

    Raises:
        VariantError: the variant's scramble names no variant with texts.
    """
    if turn not in turns_of(config, name):
        return None
    texts = variant_texts(config, name)
    return texts[_text_number(config, len(texts), index, ask_of(config, name, draw))] if texts else None


def turns_of(config: Config, name: str) -> range:
    """Return the numbers of the user's turns that a variant adds its text to."""
    turn, last = config.variants[name].turn, config.conversation.last_turn
    if turn == "all":
        return range(1, last + 1)
    number = {"first": 1, "last": last}.get(turn, turn) if isinstance(turn, str) else turn
    assert isinstance(number, int)
    return range(number, number + 1)


def place(messages: list[Message], text: str, placement: str) -> list[Message]:
    """A copy of the messages with the text before or after the content of the system message or the last user message.

    The last user message is the question; earlier ones are examples. Where there is no system message, one that holds
    the text alone is put first.
    """
    role = placement.partition("_")[0]
    placed = copy.deepcopy(messages)
    target = next((message for message in reversed(placed) if message["role"] == role), None)
    if target is None:
        return [{"role": role, "content": text}, *placed]
    target["content"] = placed_text(target["content"], text, placement)
    return placed


def placed_text(content: str, text: str, placement: str) -> str:
    """Return the content of a message with a text before or after it."""
    return SEPARATOR.join([text, content] if placement.endswith("_prefix") else [content, text])


def apply_transform(name: str, reference: str, messages: list[Message]) -> list[Message]:
    """Call a variant's `module:function` on a copy of the messages.

    Raises:
        TransformError: it cannot be imported, raised, or returned no list of messages. The message names the
            variant and the function.
    """
    function = load_transform(name, reference)
    try:
        result = function(copy.deepcopy(messages))
    except Exception as error:
        raise TransformError(raised_by(f"variants.{name}.transform", reference, error)) from error
    problem = message_problem(result)
    if problem is not None:
        raise TransformError(f"variants.{name}.transform: {reference} must return a list of messages, but {problem}")
    return [dict(message) for message in result]


def load_transform(name: str, reference: str) -> Callable[[list[Message]], Any]:
    """Import a variant's `module:function`.

    Raises:
        TransformError: there is no such module or function.
    """
    return load_function(f"variants.{name}.transform", reference, TransformError)


def identity(config: Config, name: str) -> str:
    """Return what a variant's trajectories depend on: its texts and placement, its template, or its transform's source.

    So do they on its prefill. That of the prompt is the prompt's.

    Valence and arousal are left out: they are labels for the analysis. A scrambled variant has the texts that it
    places, so that another text of its source, or another seed, makes it anew. What cannot be found is left to the
    checks of a plan.
    """
    prefill = config.variants[name].prefill
    return _identity(config, name) + ("" if prefill is None else f" prefill {json.dumps(prefill)}")


def _identity(config: Config, name: str) -> str:
    variant = config.variants[name]
    if variant.template is not None:
        return json.dumps(["template", variant.template])
    if variant.transform is None:
        try:
            texts = variant_texts(config, name)
        except VariantError:
            texts = [f"{variant.scramble}"]
        placed = json.dumps([texts, variant.placement if texts else None])
        turns = list(turns_of(config, name))
        return placed if turns == [1] else f"{placed} turns {turns}"
    source = source_of(variant.transform)
    return f"{source} prefill" if source != variant.transform and begins_answer(config, name) else source


def begins_answer(config: Config, name: str) -> bool:
    """Return whether a transform ends with the assistant's message, which 0.2 closed and later versions continue."""
    try:
        return bool(_unbegun_messages(config, name, "What is 2 + 3?", 0)[-1]["role"] == "assistant")
    except VariantError:
        return False


def message_problem(result: Any) -> str | None:
    """Return why a function's result is no list of messages; None: it is one."""
    if not isinstance(result, list):
        return f"returned {type(result).__name__}"
    if not result:
        return "returned an empty list"
    for number, message in enumerate(result):
        if not isinstance(message, dict):
            return f"item {number} is {type(message).__name__}, not a dict with role and content"
        if message.get("role") not in ROLES:
            return f"item {number} has role {message.get('role')!r} (accepted: {', '.join(ROLES)})"
        if not isinstance(message.get("content"), str):
            return f"item {number} has content of type {type(message.get('content')).__name__}, not str"
        try:
            json.dumps(message)
        except (TypeError, ValueError) as error:
            return f"item {number} is no JSON ({error})"
        if (place := half_surrogate(message)) is not None:
            return f"item {number} holds half a surrogate pair ({place}), which no UTF-8 file can hold"
    return None
