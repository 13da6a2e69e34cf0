"""Kinds of conversation: how one goes on after an answer.

A kind is a function from a conversation so far to its next turn, or None where it is over. `conversation.kind` names
one; a new kind is a function, an entry of `KINDS`, and a word in `emoprobe.config.science.conversation.KINDS`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.conversation import UserTurn
from emoprobe.conversations.tools import Interruption, call_tools
from emoprobe.conversations.variants import (
    VariantError,
    message_problem,
    opening_messages,
    placed_text,
    variant_text,
)
from emoprobe.functions import load_function, raised_by, source_of
from emoprobe.results.trajectory import Message


@dataclass(frozen=True)
class Progress:
    """A conversation whose last message is an answer.

    Attributes:
        config: the experiment.
        variant: the variant.
        index: the sample's place in the permutation, from 0.
        draw: which completion of the pair, from 1.
        messages: all messages so far.
        turn: number of the answer: of the user's turn that was answered, 1 for the question; an agent has one such
            turn, and its answers are counted.
        correct: whether that answer is right; None while planning: no rule, function or tool is called, and every
            scripted turn is taken.
        interruption: ends the tools that are called, see `call_tools`.
    """

    config: Config
    variant: str
    index: int
    draw: int
    messages: list[Message]
    turn: int
    correct: bool | None
    interruption: Interruption | None = None


@dataclass(frozen=True)
class NextTurn:
    """The next turn: the number of its answer, and the messages up to that answer, whose beginning may be last."""

    number: int
    messages: list[Message]


class RuleError(VariantError):
    """A rule of a turn that cannot be imported or raised; the message names the key and the function."""


def single(_progress: Progress) -> NextTurn | None:
    """End after the first answer."""
    return None


def scripted(progress: Progress) -> NextTurn | None:
    """Go on with the next turn of `conversation.turns` whose rule holds."""
    turns = progress.config.conversation.turns
    for number, turn in enumerate(turns[progress.turn - 1 :], progress.turn + 1):
        if progress.correct is None or _holds(turn, number, progress):
            asked = _with_text({"role": "user", "content": turn.text}, number, progress)
            begun = [] if turn.prefill is None else [{"role": "assistant", "content": turn.prefill}]
            return NextTurn(number, [*progress.messages, asked, *begun])
    return None


def agent(progress: Progress) -> NextTurn | None:
    """Go on with the results of the tools that the answer calls; end with an answer that calls none."""
    settings, answer = progress.config.conversation, progress.messages[-1]
    if progress.correct is None or not answer.get("tool_calls") or progress.turn >= settings.max_turns:
        return None
    results = call_tools(settings, answer, progress.interruption)
    return NextTurn(progress.turn + 1, [*progress.messages, *results])


def by_function(progress: Progress) -> NextTurn | None:
    """Go on with what the function that `conversation.kind` names returns."""
    settings, number = progress.config.conversation, progress.turn + 1
    if progress.correct is None or number > settings.max_turns:
        return None
    result = _asked("conversation.kind", settings.kind, progress)
    if result is None:
        return None
    said: list[Message] = [{"role": "user", "content": result}] if isinstance(result, str) else result
    problem = message_problem(said) or _no_turn(said)
    if problem is not None:
        raise RuleError(
            f"conversation.kind: {settings.kind} must return the user's message, a list of messages, or None, but "
            f"{problem}"
        )
    first, *rest = copy.deepcopy(said)
    return NextTurn(number, [*progress.messages, _with_text(first, number, progress), *rest])


KINDS: Mapping[str, Callable[[Progress], NextTurn | None]] = {each.__name__: each for each in (single, scripted, agent)}


def next_turn(progress: Progress) -> NextTurn | None:
    """Return the next turn of a conversation; None where it is over.

    Raises:
        RuleError: a function of the conversation cannot be asked, or returned something else.
    """
    return KINDS.get(progress.config.conversation.kind, by_function)(progress)


def longest_conversation(config: Config, variant: str, question: str, index: int, draw: int = 1) -> NextTurn:
    """Return the last turn that a plan knows of, where no turn is skipped; see `every_turn`.

    Raises:
        VariantError: the variant has no opening.
    """
    *_, last = every_turn(config, variant, question, index, draw)
    return last


def every_turn(config: Config, variant: str, question: str, index: int, draw: int = 1) -> Iterator[NextTurn]:
    """Yield the turns of a conversation that skips none, each with the messages up to its answer.

    Each earlier answer is the placeholder `?`, after its prefill if it has one.

    Raises:
        VariantError: the variant has no opening.
    """
    reached = NextTurn(1, opening_messages(config, variant, question, index, draw))
    while True:
        yield reached
        last = reached.messages[-1]
        begun = str(last["content"]) if last["role"] == "assistant" else ""
        asked = reached.messages[:-1] if begun else reached.messages
        answered: list[Message] = [*asked, {"role": "assistant", "content": f"{begun}?"}]
        following = next_turn(Progress(config, variant, index, draw, answered, reached.number, None))
        if following is None:
            return
        reached = following


def identity(config: Config) -> list[object]:
    """Return what a conversation after its first answer depends on: its settings, and the source of its functions."""
    functions = {key: source_of(reference) for key, reference in config.conversation.functions.items()}
    return [config.conversation.content(), functions]


def check_rules(config: Config) -> None:
    """Import the functions of a conversation.

    Raises:
        RuleError: one cannot be imported.
    """
    for key, reference in config.conversation.functions.items():
        load_function(key, reference, RuleError)


def _holds(turn: UserTurn, number: int, progress: Progress) -> bool:
    if turn.when == "always":
        return True
    if turn.when in ("after_wrong", "after_right"):
        return progress.correct is (turn.when == "after_right")
    return bool(_asked(f"conversation.turns.{number - 2}.when", turn.when, progress))


def _asked(key: str, reference: str, progress: Progress) -> Any:
    """Call a function of the user's with a copy of the messages.

    Raises:
        RuleError: it cannot be imported, or raised.
    """
    function = load_function(key, reference, RuleError)
    try:
        return function(copy.deepcopy(progress.messages))
    except Exception as error:
        raise RuleError(raised_by(key, reference, error)) from error


def _no_turn(said: list[Message]) -> str | None:
    """Return why messages are no turn of the user, after which the answer may begin; None where they are."""
    roles = [message["role"] for message in said]
    asked = roles[:-1] if roles[-1] == "assistant" else roles
    return None if asked and set(asked) == {"user"} else f"returned messages with the roles {', '.join(roles)}"


def _with_text(message: Message, number: int, progress: Progress) -> Message:
    """Return the user's message, with the variant's text where it belongs to that turn."""
    config, name = progress.config, progress.variant
    text = variant_text(config, name, progress.index, progress.draw, number)
    if text is None:
        return message
    return message | {"content": placed_text(message["content"], text, config.variants[name].placement)}
