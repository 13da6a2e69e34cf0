"""Graders: what is measured of every answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from emoprobe.config.section import Extent, Section, Text

GraderName = Literal["number", "logprob"]


class LogprobGrader(Section):
    """The grader `logprob`: probability of the gold answer by teacher forcing.

    `graders` lists the graders of an experiment by name, or as a mapping of `name` and the keys below; the first one is
    primary. `number`, which compares the final answer with the gold answer, has no keys and must be in the list.
    """

    name: Literal["logprob"] = Field("logprob", description="Name of the grader.")
    lead: str = Field(
        "Answer:",
        description="Beginning of the answer that is given after the prompt, or after the thought where the model "
        "thinks; its own probability does not count. It may be empty.",
    )
    gold: Annotated[list[Text], Field(min_length=1)] = Field(
        [" {answer}"],
        description="Forms of the gold answer that count, each after `lead`; `{answer}` is the gold answer. p(gold) is "
        "the sum of their probabilities. Any continuation of a form counts as well, such as 720 for 72, unless the "
        "form ends with a special token, such as an end of turn.",
    )
    margin: Annotated[float | None, Extent] = Field(
        None,
        gt=0.0,
        lt=1.0,
        description="Equivalence margin of p(gold); null: equivalence is not tested.",
    )

    @field_validator("gold")
    @classmethod
    def _gold(cls, gold: list[str]) -> list[str]:
        if not all("{answer}" in form for form in gold):
            raise ValueError("every form must contain the placeholder {answer}")
        if len(set(gold)) < len(gold):
            raise ValueError("names a form twice")
        return gold


Graders = list[GraderName | LogprobGrader]


def complete(graders: Graders) -> Graders:
    """Return the graders of an experiment, each with its settings if it has any.

    Raises:
        ValueError: one is named twice, or `number` is missing.
    """
    found: Graders = [LogprobGrader() if entry == "logprob" else entry for entry in graders]
    names = [name_of(entry) for entry in found]
    if len(set(names)) < len(names):
        raise ValueError("names a grader twice")
    if "number" not in names:
        raise ValueError("must contain number, which accuracies, probes and steering are made from")
    return found


def name_of(grader: GraderName | LogprobGrader) -> GraderName:
    """Return the name of an entry of `graders`."""
    return grader if isinstance(grader, str) else grader.name
