"""The messages that every variant starts from."""

from __future__ import annotations

import datetime
from string import Formatter
from typing import Annotated, Any

from pydantic import Field, field_validator

from emoprobe.config.section import Added, Section, Text


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

    date: Annotated[str | None, Added] = Field(
        None,
        description="Day that a chat template which writes the date takes for today, such as `2025-01-31`; "
        "null: 2024-07-26, or a day that the template names itself.",
    )

    @field_validator("date", mode="before")
    @classmethod
    def _date(cls, date: Any) -> Any:
        if isinstance(date, datetime.date):  # YAML reads it as one
            return date.isoformat()
        try:
            if date is None or datetime.date.fromisoformat(date).isoformat() == date:
                return date
        except (TypeError, ValueError):
            pass
        raise ValueError("must be a date such as 2025-01-31")

    @property
    def day(self) -> datetime.date | None:
        """The date as a date."""
        return None if self.date is None else datetime.date.fromisoformat(self.date)

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
