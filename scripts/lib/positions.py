"""Positions in a sequence of tokens: named ones, indices, and the spans that they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from scripts.lib.config import NamedPosition

NAMES: tuple[str, ...] = get_args(NamedPosition)
TokenSpan = tuple[int, int]
Positions = Literal["all"] | list[int | str]


class PositionError(ValueError):
    """Positions that a sequence does not have; the message says what it accepts."""


@dataclass(frozen=True)
class Spans:
    """Half-open token spans of the parts of a conversation; None where a part is missing or empty.

    `response` begins where the prompt ends; its length is 0 for a prompt alone.
    """

    system: TokenSpan | None
    prefix: TokenSpan | None
    question: TokenSpan | None
    response: TokenSpan

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "system": self.system and list(self.system),
            "prefix": self.prefix and list(self.prefix),
            "question": self.question and list(self.question),
            "response": list(self.response),
        }


@dataclass(frozen=True)
class Resolved:
    """What a position comes down to: the mean over the tokens of `span`, which holds one token for a single one.

    `empty` says that the part it is named after has no tokens, so that a neighbour stands in for it.
    """

    name: str
    span: TokenSpan
    empty: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"name": self.name, "span": list(self.span), "empty": self.empty}


def resolve(positions: Positions, spans: Spans) -> list[Resolved]:
    """Resolve positions in a sequence of prompt and response.

    - `last_prompt`: the last token of the prompt.
    - `prefix_mean`: the mean over the variant's text. Without one (control), the token just before the question,
      which is where a prefix would have ended.
    - `response_first`, `response_mean`, `response_last`: of the completion, an end-of-sequence token included.
      Without one, the last token of the prompt stands in.
    - an index: that token; negative ones count from the end.
    - `all`: every token.

    Raises:
        PositionError: an index lies outside of the sequence, or a name is unknown.
    """
    start, end = spans.response
    length = end
    if positions == "all":
        return [Resolved(str(index), (index, index + 1)) for index in range(length)]
    last_prompt = (start - 1, start)
    resolved = []
    for position in positions:
        if isinstance(position, int):
            if not -length <= position < length:
                raise PositionError(f"position {position} lies outside of a sequence of {length} tokens")
            index = position % length
            resolved.append(Resolved(str(position), (index, index + 1)))
        elif position == "last_prompt":
            resolved.append(Resolved(position, last_prompt))
        elif position == "prefix_mean":
            before = max((spans.question or (start, start))[0] - 1, 0)
            resolved.append(Resolved(position, spans.prefix or (before, before + 1), spans.prefix is None))
        elif position in NAMES:
            span = {"response_first": (start, start + 1), "response_last": (end - 1, end)}.get(position, (start, end))
            resolved.append(Resolved(position, span if end > start else last_prompt, end == start))
        else:
            raise PositionError(f"position {position!r} is unknown; accepted: all, token indices, {', '.join(NAMES)}")
    return resolved


def token_span(offsets: list[tuple[int, int]], start: int, end: int) -> TokenSpan | None:
    """The tokens that overlap the characters from `start` to `end`, None where none does."""
    touched = [index for index, (first, last) in enumerate(offsets) if first < end and last > start and last > first]
    return (touched[0], touched[-1] + 1) if touched else None
