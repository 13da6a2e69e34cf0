"""Variants: how an emotional text, or a function, changes the opening messages of a conversation."""

from __future__ import annotations

import copy
import hashlib
import importlib
import importlib.util
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.prompt import Prompt
from emoprobe.config.science.variants import Variant
from emoprobe.results.trajectory import Message

ROLES = ("system", "developer", "user", "assistant", "tool")
SEPARATOR = "\n\n"


class TransformError(ValueError):
    """A transform that cannot be imported, raised, or returned something that is no list of messages."""


def base_messages(prompt: Prompt, question: str) -> list[Message]:
    """The messages that every variant starts from: the system message, if any, and the question."""
    messages = [] if prompt.system is None else [{"role": "system", "content": prompt.system}]
    return [*messages, {"role": "user", "content": prompt.template.format(question=question)}]


def paraphrase_index(variant: Variant, index: int) -> int | None:
    """Which of a variant's texts the sample at `index` (from 0) of the permutation gets, None for no text."""
    return index % len(variant.paraphrases) if variant.paraphrases else None


def opening_messages(config: Config, name: str, question: str, index: int) -> list[Message]:
    """The messages that open the conversation of one variant on one sample.

    Args:
        config: the experiment.
        name: the variant.
        question: the sample's question.
        index: the sample's place in the permutation, from 0; it picks the paraphrase.

    Raises:
        TransformError: the variant's transform failed.
    """
    variant = config.variants[name]
    messages = base_messages(config.prompt, question)
    if variant.transform is not None:
        return apply_transform(name, variant.transform, messages)
    chosen = paraphrase_index(variant, index)
    return messages if chosen is None else place(messages, variant.paraphrases[chosen], variant.placement)


def place(messages: list[Message], text: str, placement: str) -> list[Message]:
    """A copy of the messages with the text before or after the content of the first user or system message.

    Where there is no system message, one that holds the text alone is put first.
    """
    role, _, side = placement.partition("_")
    placed = copy.deepcopy(messages)
    target = next((message for message in placed if message["role"] == role), None)
    if target is None:
        return [{"role": role, "content": text}, *placed]
    parts = [text, target["content"]] if side == "prefix" else [target["content"], text]
    target["content"] = SEPARATOR.join(parts)
    return placed


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
        where = _line_of(error)
        raise TransformError(
            f"variants.{name}.transform: {reference} raised {type(error).__name__}: {error}{where}"
        ) from error
    problem = _problem(result)
    if problem is not None:
        raise TransformError(f"variants.{name}.transform: {reference} must return a list of messages, but {problem}")
    return [dict(message) for message in result]


@cache
def load_transform(name: str, reference: str) -> Callable[[list[Message]], Any]:
    """Import a variant's `module:function`.

    Raises:
        TransformError: there is no such module or function.
    """
    module, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except Exception as error:
        raise TransformError(
            f"variants.{name}.transform: {reference} cannot be imported ({type(error).__name__}: {error}). "
            "The module must lie beside the Snakefile, in the working directory, or be installed."
        ) from error
    if not callable(found):
        raise TransformError(f"variants.{name}.transform: {reference} is no function")
    function: Callable[[list[Message]], Any] = found
    return function


def identity(variant: Variant) -> str:
    """What the variant's trajectories depend on: its texts and placement, or the source of its transform.

    The valence is left out: it is a label for the analysis.
    """
    if variant.transform is None:
        return json.dumps([variant.paraphrases, variant.placement if variant.paraphrases else None])
    module = variant.transform.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return variant.transform
    return f"{variant.transform}@{hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()}"


def _problem(result: Any) -> str | None:
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
    return None


def _line_of(error: Exception) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})"
