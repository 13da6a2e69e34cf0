"""The messages that every variant starts from."""

from __future__ import annotations

import datetime
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from emoprobe.config.section import Added, Extent, Section, Text, check_function, check_prefill


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
        description="System message; null: none.",
    )
    template: Text = Field(
        '{question}\n\nThink step by step, then write the final answer as "Answer: [number]".',
        description="User message; `{question}` is replaced by the question with its options, `{{` and `}}` for "
        "braces.",
    )

    examples: list[Example] = Field(
        default_factory=list, description="Few-shot examples: solved questions, as turns before the question."
    )

    date: Annotated[str | None, Added] = Field(
        None,
        description="Date shown by chat templates that print today's date, such as `2025-01-31`; "
        "null: 2024-07-26, or the date that the template names itself.",
    )

    prefill: Annotated[Text | None, Added] = Field(
        None,
        description="Beginning of the answer, which the model continues; null: none. docs/graders.md says which "
        "graders read it.",
    )

    text_order: Annotated[Literal["cyclic", "permuted"], Added] = Field(
        "cyclic",
        description="Which text a question gets where there are fewer texts than questions. permuted: each run of "
        "questions as long as the texts gets all of them in a seeded random order; cyclic: in the order of the texts, "
        "as in version 0.2.",
    )

    formats: Annotated[int, Extent, Added] = Field(
        0,
        ge=0,
        le=32,
        description="Number of formats: variants `reformatted-1`, `-2` … without a text, whose template has other "
        "labels, separators and line breaks around the same words. They show how far the format alone moves accuracy; "
        "each takes as many trajectories as `control`.",
    )

    @field_validator("prefill")
    @classmethod
    def _prefill(cls, prefill: str | None) -> str | None:
        return check_prefill(prefill)

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
        return check_template(template)


def check_template(template: str) -> str:
    """Return the template of a user message.

    Raises:
        ValueError: it has not the one placeholder `{question}`.
    """
    try:
        fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        raise ValueError(f"is no format string ({error}); write {{{{ and }}}} for literal braces") from None
    if set(fields) != {"question"}:
        placeholders = ", ".join(f"{{{name}}}" for name in fields) or "none"
        raise ValueError(
            f"must contain the placeholder {{question}} and no other (found: {placeholders}); "
            "write {{ and }} for literal braces"
        )
    return template


# The keys that say what a variant does; at most one is given.
WAYS = ("text", "texts", "transform", "scramble", "template")
Placement = Literal["user_prefix", "user_suffix", "system_prefix", "system_suffix"]
Valence = Literal["negative", "neutral", "positive"]
Arousal = Literal["high", "low"]
# Valences that probes of valence tell apart.
SIGNS = {"negative": -1, "positive": 1}


class Variant(Section):
    """One way of opening the conversation. With no key at all, messages stay as they are."""

    text: Text | None = Field(None, description="The emotional text.")
    texts: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None,
        description="Paraphrases, dealt to the samples (`prompt.text_order`); all draws of a question have the same "
        "one.",
    )
    placement: Placement = Field("user_prefix", description="Where the text is added.")
    turn: Annotated[Literal["first", "last", "all"] | Annotated[int, Field(ge=1)], Added] = Field(
        "first",
        description="Turn of the user that the text is added to: `first` (the question), `last`, `all`, or a number, 1 "
        "for the question; further turns are those of `conversation`.",
    )
    transform: str | None = Field(
        None, description="`module:function` instead of a text: takes and returns a list of messages."
    )
    scramble: Text | None = Field(
        None,
        description="Name of another variant whose texts are used with their words in a seeded random order: a "
        "control for tone.",
    )
    template: Annotated[Text | None, Added] = Field(
        None, description="Template in place of `prompt.template`, for the examples as well."
    )
    prefill: Annotated[Text | None, Added] = Field(
        None, description="Beginning of the answer in place of `prompt.prefill`."
    )
    valence: Valence | None = Field(None, description="Emotional valence of the text, a target of the probes.")
    arousal: Annotated[Arousal | None, Added] = Field(
        None, description="Emotional arousal of the text: excited or agitated (high), or calm or subdued (low)."
    )
    asks: Annotated[int, Extent, Added] = Field(
        1,
        ge=1,
        description="How many times each question is asked, each time with another of the `texts`: for references, "
        "whose noise is in every comparison. Further ones lie in `SAMPLE-d2`, `-d3` … after all draws of the first.",
    )

    @field_validator("text")
    @classmethod
    def _text(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("must hold more than white space")
        return text

    @field_validator("texts")
    @classmethod
    def _texts(cls, texts: list[str] | None) -> list[str] | None:
        if texts is not None and not all(text.strip() for text in texts):
            raise ValueError("every text must hold more than white space")
        return texts

    @field_validator("template")
    @classmethod
    def _template(cls, template: str | None) -> str | None:
        return None if template is None else check_template(template)

    @field_validator("prefill")
    @classmethod
    def _prefill(cls, prefill: str | None) -> str | None:
        return check_prefill(prefill)

    @field_validator("transform")
    @classmethod
    def _transform(cls, transform: str | None) -> str | None:
        return None if transform is None else check_function(transform)

    @model_validator(mode="after")
    def _one_way(self) -> Variant:
        given = [key for key in WAYS if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"has {' and '.join(given)}; give one of {', '.join(WAYS)}")
        return self

    @model_validator(mode="after")
    def _turn_of_a_text(self) -> Variant:
        if self.turn == "first":
            return self
        if self.scramble is None and not self.paraphrases:
            raise ValueError(f"turn = {self.turn!r} is where a text goes, and there is none; add a text or remove turn")
        if not self.placement.startswith("user_"):
            raise ValueError(
                f"turn = {self.turn!r} with placement {self.placement}: the system message is of no turn; use "
                "user_prefix or user_suffix"
            )
        return self

    @property
    def paraphrases(self) -> list[str]:
        """The texts that this variant names itself; empty where it adds none, or those of another."""
        return self.texts if self.texts is not None else [self.text] if self.text is not None else []
