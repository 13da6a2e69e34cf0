"""The messages that every variant starts from."""

from __future__ import annotations

from string import Formatter
from typing import Annotated

from pydantic import Field, field_validator

from emoprobe.config.section import Section, Text


class Example(Section):
    """A solved question; the template is applied to it as to every other."""

    question: Text = Field(description="The question.")
    answer: Text = Field(description="What the assistant answered, word for word.")
    choices: Annotated[list[Text], Field(min_length=2, max_length=26)] | None = Field(
        None, description="Options of a multiple-choice question; shown as those of the data set."
    )


class Prompt(Section):
    """The messages that every variant starts from."""

    system: str | None = Field(
        "You are a careful assistant who solves math word problems.",
        description="System message; null for none.",
    )
    template: Text = Field(
        '{question}\n\nThink step by step, then write the final answer as "Answer: [number]".',
        description="User message; `{question}` stands for the question with its options, `{{` and `}}` for braces.",
    )

    examples: list[Example] = Field(
        default_factory=list, description="Solved questions that stand before the question, as earlier turns."
    )

    @field_validator("template")
    @classmethod
    def _template(cls, template: str) -> str:
        try:
            fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
        except ValueError as error:
            raise ValueError(f"is no format string ({error}); write {{{{ and }}}} for literal braces") from None
        if set(fields) != {"question"}:
            found = ", ".join(f"{{{name}}}" for name in fields) or "none"
            raise ValueError(
                f"must contain the placeholder {{question}} and no other (found: {found}); "
                "write {{ and }} for literal braces"
            )
        return template
