"""Variants that ask a question in other words: transforms for `rewrites.yaml`.

`rewrites.jsonl`, beside this module, is the data set and has each question, by its id, in other words: plainly
(`neutral`) and in three tones. All numbers are those of the question, so that its answer stays the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Message = dict[str, Any]
ROWS = [json.loads(line) for line in Path(__file__).with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()]


def neutral(messages: list[Message]) -> list[Message]:
    """Ask in other words, without a tone: what rewriting does by itself."""
    return rewritten(messages, "neutral")


def frustration(messages: list[Message]) -> list[Message]:
    """Ask with frustration."""
    return rewritten(messages, "frustration")


def impatience(messages: list[Message]) -> list[Message]:
    """Ask with impatience."""
    return rewritten(messages, "impatience")


def excitement(messages: list[Message]) -> list[Message]:
    """Ask with excitement."""
    return rewritten(messages, "excitement")


def rewritten(messages: list[Message], column: str) -> list[Message]:
    """Return the messages with the question in the words of a column; the template around it stays.

    Raises:
        LookupError: the table does not have the question.
    """
    *before, asked = messages
    for row in ROWS:
        if row["question"] in asked["content"]:
            return [*before, asked | {"content": asked["content"].replace(row["question"], row[column])}]
    raise LookupError(f"rewrites.jsonl has no question that is in {asked['content'][:60]!r}; add a row for it")
