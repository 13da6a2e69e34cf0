"""Positions in a sequence of tokens: named ones, indices, and the spans that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from emoprobe.config.science.capture import THOUGHT_POSITIONS, NamedPosition, turn_position
from emoprobe.results.activation_folder import TokenPosition, TokenSpan, TokenSpans

NAMES: tuple[str, ...] = get_args(NamedPosition)
Positions = Literal["all"] | list[int | str]


class PositionError(ValueError):
    """Positions that a sequence does not have; the message says what it accepts."""


def resolve(positions: Positions, spans: TokenSpans) -> list[TokenPosition]:
    """Resolve positions in a sequence of prompt and response.

    - `last_prompt`: the last token of the prompt.
    - `prefix_mean`: the mean over the variant's text. Without one (control), the token just before the question,
      which is where a prefix would have ended.
    - `response_first`, `response_mean`, `response_last`: of the completion, an end-of-sequence token included.
      Without one, the last token of the prompt stands in.
    - `thinking_mean`, `thinking_last`: of the thought, without its markers. Without one, as for the completion.
    - `turn2.last_prompt`, `turn2.response_first`, …: of the answer to the user's turn 2. Where that turn was skipped,
      or its answer has no tokens, the last token of the prompt stands in.
    - an index: that token; negative ones count from the end.
    - `all`: every token.

    Raises:
        PositionError: an index lies outside of the sequence, a name is unknown, or is of a turn and no turns are known.
    """
    start, end = spans.response
    length = end
    if positions == "all":
        return [TokenPosition(name=str(index), span=(index, index + 1)) for index in range(length)]
    last_prompt = (start - 1, start)
    resolved = []
    for position in positions:
        if isinstance(position, int):
            if not -length <= position < length:
                raise PositionError(f"position {position} lies outside of a sequence of {length} tokens")
            index = position % length
            resolved.append(TokenPosition(name=str(position), span=(index, index + 1)))
        elif position == "last_prompt":
            resolved.append(TokenPosition(name=position, span=last_prompt))
        elif position == "prefix_mean":
            before = max((spans.question or (start, start))[0] - 1, 0)
            resolved.append(
                TokenPosition(name=position, span=spans.prefix or (before, before + 1), empty=spans.prefix is None)
            )
        elif position in THOUGHT_POSITIONS:
            thought = spans.thought
            last = None if thought is None else (thought[1] - 1, thought[1])
            resolved.append(
                TokenPosition(
                    name=position,
                    span=(thought if position == "thinking_mean" else last) or last_prompt,
                    empty=thought is None,
                )
            )
        elif position in NAMES:
            resolved.append(_in_answer(position, position, (start, end) if end > start else None, last_prompt))
        elif (named := turn_position(position)) is not None:
            if spans.turns is None:
                raise PositionError(f"position {position!r} is of a turn, and where the turns are is not known")
            resolved.append(_in_answer(position, named[1], spans.turns.get(named[0]), last_prompt))
        else:
            raise PositionError(f"position {position!r} is unknown; accepted: all, token indices, {', '.join(NAMES)}")
    return resolved


def _in_answer(name: str, place: str, answer: TokenSpan | None, other: TokenSpan) -> TokenPosition:
    """A position by its place in an answer; the `other` tokens stand in for those of an answer without any."""
    if answer is None:
        return TokenPosition(name=name, span=other, empty=True)
    start, end = answer
    first = {"last_prompt": (start - 1, start), "response_first": (start, start + 1), "response_last": (end - 1, end)}
    return TokenPosition(name=name, span=first.get(place, answer))


def token_span(offsets: Sequence[tuple[int, int]], start: int, end: int) -> TokenSpan | None:
    """The tokens that overlap the characters from `start` to `end`, None where none does."""
    touched = [index for index, (first, last) in enumerate(offsets) if first < end and last > start and last > first]
    return (touched[0], touched[-1] + 1) if touched else None
