"""Thoughts of a model: how families of models mark them, and which tokens of a completion they are.

A model that thinks writes its reasoning before its answer, between markers that are tokens of its vocabulary. A
completion is divided at these tokens: the same text in a question, or spelled with other tokens, is no marker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ThoughtFamily:
    """The markers of a family of models, as text.

    A thought begins after `begin` and ends before `close`; the answer follows `answer`. `opening` and `closing` are
    what is put into a prompt, or after a thought that used up its budget, to begin and to end one. `skipped` is a
    prompt's end after which no thought comes.
    """

    begin: str
    close: str
    answer: str
    opening: str
    closing: str
    skipped: str


FAMILIES = (
    ThoughtFamily(
        begin="<think>",
        close="</think>",
        answer="</think>",
        opening="<think>\n",
        closing="\n</think>\n\n",
        skipped="<think>\n\n</think>\n\n",
    ),
    ThoughtFamily(
        begin="<|channel|>analysis<|message|>",
        close="<|end|>",
        answer="<|channel|>final<|message|>",
        opening="<|channel|>analysis<|message|>",
        closing="<|end|><|start|>assistant<|channel|>final<|message|>",
        skipped="<|channel|>final<|message|>",
    ),
)


@dataclass(frozen=True)
class DividedCompletion:
    """The thought of a completion and the beginning of its answer, counted in tokens of the completion.

    `thought` is half-open and without markers: None where there is no thought. `answer` is None where the completion
    ends within the thought.
    """

    thought: tuple[int, int] | None
    answer: int | None


@dataclass(frozen=True)
class ThoughtMarkers:
    """The markers of a model: the texts of its family, and the token ids of three of them."""

    family: ThoughtFamily
    begin: tuple[int, ...]
    close: tuple[int, ...]
    answer: tuple[int, ...]

    @classmethod
    def of(cls, template: str, encode: Callable[[str], Sequence[int]]) -> ThoughtMarkers | None:
        """Return the markers of a model; None where its chat template names none, or they are no tokens.

        Args:
            template: the chat template.
            encode: from a text to its token ids.
        """
        for family in FAMILIES:
            first = family.begin[: family.begin.index(">") + 1]
            if any(part in template for part in (first, family.close)) and len(encode(first)) == 1:
                begin, close, answer = (tuple(encode(text)) for text in (family.begin, family.close, family.answer))
                if len(close) == 1:
                    return cls(family, begin, close, answer)
        return None

    def is_open(self, text: str) -> bool | None:
        """Return whether a text ends within a thought; None where it names no marker."""
        begin, answer = text.rfind(self.family.begin), text.rfind(self.family.answer)
        return None if begin == answer == -1 else begin > answer

    def divide(self, ids: Sequence[int], *, opened: bool | None) -> DividedCompletion:
        """Divide a completion into its thought and its answer.

        The answer follows the last thought; what lies between two thoughts belongs to them. A thought that the
        completion ends in has no answer after it.

        Args:
            ids: the tokens of the completion.
            opened: whether the prompt ends within a thought; False: it ends after one, None: it says nothing of it.
        """
        begins, answers = _places(ids, self.begin), _places(ids, self.answer)
        unbegun = opened is None and not begins and bool(answers) and self.begin_is_optional
        start = 0 if opened or unbegun else None
        if begins and start is None:
            start = begins[0] + len(self.begin)
        last = answers[-1] if answers else -1
        if start is None:
            return DividedCompletion(None, last + len(self.answer) if answers else 0)
        if (begins and begins[-1] > last) or last < 0:
            return DividedCompletion((start, len(ids)), None)
        closes = [place for place in _places(ids[: last + len(self.close)], self.close) if place >= start]
        return DividedCompletion((start, closes[-1] if closes else last), last + len(self.answer))

    @property
    def begin_is_optional(self) -> bool:
        """Whether a thought that is closed and was not begun is one: where the marker after it is its own end."""
        return self.close == self.answer


def _places(ids: Sequence[int], wanted: tuple[int, ...]) -> list[int]:
    """The places at which a sequence of tokens occurs."""
    first, length = wanted[0], len(wanted)
    return [at for at, token in enumerate(ids) if token == first and tuple(ids[at : at + length]) == wanted]
