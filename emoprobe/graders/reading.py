"""One value of an answer and its text, and what reading numbers and letters have in common."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

# No answer needs more text than this behind its mark; with it, a text with many marks is read in linear time.
WINDOW = 400
FLAGS = re.IGNORECASE | re.VERBOSE
SENTENCE_END = re.compile(r"[.!?;](?:\s(?!\s?=)|$)|\n")
DENIED = re.compile(
    r"""(?:\bnot|n't|\bnever|\bcannot|\brather[ ]than|\binstead[ ]of)\s+
    (?:(?:be|equal[ ]to|exactly|just|only|the|option|choice|answer|more[ ]than|less[ ]than)\s+){0,4}\W?$""",
    FLAGS,
)


class Reading(NamedTuple):
    """One value and its text; without a value: an answer that is not one value."""

    value: Fraction | str | None
    text: str
