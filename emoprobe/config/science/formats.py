"""Reformatted templates: the same words and numbers with other separators, labels and line breaks.

What is varied, and how far it moves accuracies, follows Sclar et al. (2024), FormatSpread.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import product
from string import Formatter

# Label of the question → that of the answer.
LABELS = {"Question": "Answer", "QUESTION": "ANSWER", "Q": "A", "question": "answer"}
SEPARATORS = (": ", ":\n", " - ", "::: ", ":\t")
# Before the label of the answer; None: it has none. One follows a question that ends the template alone: before an
# instruction to think it would ask for something else.
BREAKS = (None, "\n", "\n\n")
# In place of the line breaks of the template.
GAPS = (None, "\n", "\n\n\n", "\n---\n", "\n\n***\n\n")


def reformatted(template: str, seed: int) -> list[str]:
    """Return every other format of a template, in an order that follows from the seed.

    Args:
        template: `prompt.template`.
        seed: of the experiment.
    """
    found = [text for text in dict.fromkeys(_formats(template)) if text != template]
    random.Random(f"{seed}:formats").shuffle(found)
    return found


def _formats(template: str) -> Iterator[str]:
    """The combinations of labels, separators and line breaks, some of which may be the template itself."""
    parts = [(literal, name is not None) for literal, name, _, _ in Formatter().parse(template)]
    before, has_more = parts[0][0], len(parts) > 1
    # A template that labels the question itself keeps its labels.
    free = before == "" or before.endswith("\n")
    labelled = list(product(LABELS, SEPARATORS, (None,) if has_more else BREAKS)) if free else []
    gaps = GAPS if "\n" in template else (None,)
    for (label, separator, line_break), gap in product([("", "", None), *labelled], gaps):
        text = ""
        for literal, is_question in parts:
            text += _escaped(literal if gap is None else re.sub(r"\n+", gap, literal))
            text += f"{label}{separator}{{question}}" if is_question else ""
        yield text if line_break is None else f"{text}{line_break}{LABELS[label]}{separator.rstrip()}"


def _escaped(literal: str) -> str:
    return literal.replace("{", "{{").replace("}", "}}")
