"""The variants of the opening messages."""

from __future__ import annotations

import keyword
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from emoprobe.config.section import Section, Text

# The keys that say what a variant does; at most one is given.
WAYS = ("text", "texts", "transform", "scramble")
Placement = Literal["user_prefix", "user_suffix", "system_prefix", "system_suffix"]
Valence = Literal["negative", "neutral", "positive"]


class Variant(Section):
    """One way of opening the conversation. With no key at all, messages stay as they are."""

    text: Text | None = Field(None, description="The emotional text.")
    texts: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="Paraphrases of it, assigned by sample index in turn; all draws of a question get the same."
    )
    placement: Placement = Field("user_prefix", description="Where the text goes.")
    transform: str | None = Field(
        None, description="`module:function` instead of a text: takes and returns a list of messages."
    )
    scramble: Text | None = Field(
        None,
        description="Name of another variant: its texts with their words in a seeded random order, a control for tone.",
    )
    valence: Valence | None = Field(None, description="Emotional valence of the text, a target of the probes.")

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

    @field_validator("transform")
    @classmethod
    def _transform(cls, transform: str | None) -> str | None:
        if transform is None:
            return None
        module, colon, function = transform.partition(":")
        parts = [*module.split("."), *function.split(".")]
        if not colon or not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
            raise ValueError("must name a function as `module:function`")
        return transform

    @model_validator(mode="after")
    def _one_way(self) -> Variant:
        given = [key for key in WAYS if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"has {' and '.join(given)}; give one of {', '.join(WAYS)}")
        return self

    @property
    def paraphrases(self) -> list[str]:
        """The texts that this variant names itself; empty where it adds none, or those of another."""
        return self.texts if self.texts is not None else [self.text] if self.text is not None else []
