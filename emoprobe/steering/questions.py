"""Which questions directions are fitted on, and which are steered: two halves that share no question and no group."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_GROUPS = 5  # fewer cannot be dealt evenly: then single questions are


@dataclass(frozen=True)
class Halves:
    """The places of questions in the permutation, from 0, in ascending order."""

    fitted: list[int]
    steered: list[int]


def halves(groups: Sequence[str | None], seed: int) -> Halves:
    """Divide the first questions of an experiment.

    Groups are dealt in the order in which they come up, two at a time, one to each half. So the halves of the first
    questions stay what they are when more are drawn.

    Args:
        groups: what each question shares with others; null where it shares nothing.
        seed: decides which of two goes where.
    """
    named = [f"question {place}" if group is None else f"group {group}" for place, group in enumerate(groups)]
    if len(set(named)) < LEAST_GROUPS:
        named = [f"question {place}" for place in range(len(groups))]
    half: dict[str, int] = {}
    for name in named:
        if name not in half:
            pair, second = divmod(len(half), 2)
            half[name] = second ^ random.Random(f"{seed}:halves:{pair}").getrandbits(1)
    return Halves(*([place for place, name in enumerate(named) if half[name] == which] for which in (0, 1)))
