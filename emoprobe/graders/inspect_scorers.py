"""Scorers of Inspect AI as graders. Only those that need no model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from emoprobe.config.science.outcome_grader import Value

if TYPE_CHECKING:
    from emoprobe.graders.registry import Answer


def score(scorer: Any, answer: Answer, value: Value) -> bool | float | str | None:
    """Return the value that a scorer gives an answer, as a grader's value of some type.

    Inspect's C and I are true and false; a number of 1 or more is true. Where the value shall be a number, they are 1
    and 0, and P is 0.5, as in Inspect's `value_to_float`.
    """
    from inspect_ai.model import ChatMessageUser, ModelName, ModelOutput
    from inspect_ai.scorer import Target, value_to_float
    from inspect_ai.solver import TaskState

    state = TaskState(
        model=ModelName("none/none"),
        sample_id=answer.sample_id or "sample",
        epoch=1,
        input=answer.question or "",
        messages=[ChatMessageUser(content=answer.question or "")],
        choices=answer.choices,
        output=ModelOutput.from_content("none/none", answer.said),
    )
    result = asyncio.run(scorer(state, Target(answer.gold or "")))
    if result is None:
        return None
    if value == "category":
        return str(result.value)
    as_number: float = value_to_float()(result.value)
    return as_number if value == "number" else as_number >= 1.0
