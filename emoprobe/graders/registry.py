"""The graders: what each measures of an answer, and which value of it is tested.

A grader is a function from an answer to columns of the table of trajectories. `Config.graders` names those of an
experiment; a new one is a function with the decorator `grader`, an entry of `GRADERS`, and columns in the catalogue.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from emoprobe.graders import grading

Value = Literal["binary", "number", "category"]
Columns = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What graders read.

    Attributes:
        completion: text of the answer, after the thought where there is one.
        gold: gold answer in canonical notation; None where it is not known.
        finished: whether the model ended by itself.
        choices: options of a multiple-choice question.
        recorded: whether the folder says that the answer is correct; read where the gold answer is not known.
        log_p_gold: log p(gold) in nats, by the model; None where it was not measured.
    """

    completion: str
    gold: str | None
    finished: bool = True
    choices: list[str] | None = None
    recorded: bool | None = None
    log_p_gold: float | None = None


@dataclass(frozen=True)
class Grader:
    """A grader.

    Attributes:
        name: in `graders` of the config.
        value: type of the value that is tested.
        column: column of that value in the table of trajectories.
        title: name of the value in sentences.
        grade: returns the columns of an answer.
    """

    name: str
    value: Value
    column: str
    title: str
    grade: Callable[[Answer], Columns]


def grader(*, value: Value, column: str, title: str) -> Callable[[Callable[[Answer], Columns]], Grader]:
    """Make a grader of a function, named like it; arguments as the attributes of `Grader`."""

    def made(function: Callable[[Answer], Columns]) -> Grader:
        return Grader(function.__name__, value, column, title, function)

    return made


@grader(value="binary", column="correct", title="strict accuracy")
def number(answer: Answer) -> Columns:
    """Whether the final answer, a number or the letter of an option, equals the gold answer."""
    if answer.gold is None:  # what the folder says of its correctness is all there is
        read = grading.extract(answer.completion)
        return {
            "extracted": read.notation,
            "correct": answer.recorded,
            "lenient": answer.recorded,
            "extraction": read.extraction,
            "compliant": grading.is_compliant(answer.completion),
        }
    grade = grading.grade(answer.completion, answer.gold, finished=answer.finished, choices=answer.choices)
    return {
        "extracted": grade.answer,
        "correct": grade.correct,
        "lenient": grade.lenient,
        "extraction": grade.extraction,
        "compliant": grade.compliant,
    }


@grader(value="number", column="p_gold", title="p(gold)")
def logprob(answer: Answer) -> Columns:
    """Probability of the gold answer, after the prompt or the thought, and its logarithm."""
    log_p = answer.log_p_gold
    return {"p_gold": None if log_p is None else math.exp(log_p), "log_p_gold": log_p}


GRADERS: Mapping[str, Grader] = {each.name: each for each in (number, logprob)}


def graded(answer: Answer) -> Columns:
    """Return the columns of all graders; those of a grader that was not measured are empty."""
    return {column: value for each in GRADERS.values() for column, value in each.grade(answer).items()}
