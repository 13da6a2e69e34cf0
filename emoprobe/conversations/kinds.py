"""Kinds of conversation: how one goes on after an answer.

A kind is a function from a conversation so far to its next turn, or None where it is over. `conversation.kind` names
one; a new kind is a function, an entry of `KINDS`, and a word in `emoprobe.config.science.conversation.Kind`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from emoprobe.config.experiment import Config
from emoprobe.config.science.conversation import UserTurn
from emoprobe.conversations.variants import VariantError, opening_messages, placed_text, variant_text
from emoprobe.functions import load_function, raised_by, source_of
from emoprobe.results.trajectory import Message


@dataclass(frozen=True)
class Progress:
    """A conversation whose last message answers a turn of the user.

    Attributes:
        config: the experiment.
        variant: the variant.
        index: the sample's place in the permutation, from 0.
        draw: which completion of the pair, from 1.
        messages: all messages so far.
        turn: number of the user's turn that was answered, 1 for the question.
        correct: whether that answer is right; None: rules are not asked, and every turn is taken, as in the longest
            conversation.
    """

    config: Config
    variant: str
    index: int
    draw: int
    messages: list[Message]
    turn: int
    correct: bool | None


@dataclass(frozen=True)
class NextTurn:
    """The next turn: the number of the user's turn, and the messages up to the answer, whose beginning may be last."""

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
            text = _user_text(turn, number, progress)
            begun = [] if turn.prefill is None else [{"role": "assistant", "content": turn.prefill}]
            return NextTurn(number, [*progress.messages, {"role": "user", "content": text}, *begun])
    return None


KINDS: Mapping[str, Callable[[Progress], NextTurn | None]] = {each.__name__: each for each in (single, scripted)}


def next_turn(progress: Progress) -> NextTurn | None:
    """Return the next turn of a conversation; None where it is over.

    Raises:
        RuleError: a rule of the conversation cannot be asked.
    """
    return KINDS[progress.config.conversation.kind](progress)


def longest_conversation(config: Config, variant: str, question: str, index: int, draw: int = 1) -> NextTurn:
    """Return the last turn where no turn is skipped, see `every_turn`.

    Raises:
        VariantError: the variant has no opening.
    """
    *_, last = every_turn(config, variant, question, index, draw)
    return last


def every_turn(config: Config, variant: str, question: str, index: int, draw: int = 1) -> Iterator[NextTurn]:
    """Yield the turns of a conversation that skips none, each with the messages up to its answer.

    Earlier answers are one sign, which follows the beginning that an answer was given.

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
    key = f"conversation.turns.{number - 2}.when"
    function = load_function(key, turn.when, RuleError)
    try:
        return bool(function(copy.deepcopy(progress.messages)))
    except Exception as error:
        raise RuleError(raised_by(key, turn.when, error)) from error


def _user_text(turn: UserTurn, number: int, progress: Progress) -> str:
    """The user's message, with the variant's text where it belongs to that turn."""
    config, name = progress.config, progress.variant
    text = variant_text(config, name, progress.index, progress.draw, number)
    return turn.text if text is None else placed_text(turn.text, text, config.variants[name].placement)
