"""How a conversation goes on after the first answer."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from emoprobe.config.section import Section, Text, check_function, check_prefill

Kind = Literal["single", "scripted"]
RULES = ("always", "after_wrong", "after_right")


class UserTurn(Section):
    """A further turn of the user, which the model answers."""

    text: Text = Field(description="The user's message, before or after which a variant may add its text.")
    when: str = Field(
        "always",
        description="`always`; `after_wrong` or `after_right`: only after such an answer, by the grader `number` and "
        "its strict reading; or `module:function`, which takes the list of messages so far and returns a truth value. "
        "A turn whose rule does not hold is skipped.",
    )
    prefill: Text | None = Field(None, description="Beginning of the answer to this turn; null: none.")

    @field_validator("text")
    @classmethod
    def _text(cls, text: str) -> str:
        if not text.strip():
            raise ValueError("must hold more than white space")
        return text

    @field_validator("when")
    @classmethod
    def _when(cls, when: str) -> str:
        if when in RULES:
            return when
        try:
            return check_function(when)
        except ValueError as error:
            raise ValueError(f"must be {', '.join(RULES)}, or {str(error).removeprefix('must ')}") from None

    @field_validator("prefill")
    @classmethod
    def _prefill(cls, prefill: str | None) -> str | None:
        return check_prefill(prefill)


class Conversation(Section):
    """Course of a conversation after the first answer."""

    kind: Kind = Field(
        "single",
        description="`single`: one answer; `scripted`: the user goes on with `turns`, each of which is answered.",
    )
    turns: list[UserTurn] = Field(
        default_factory=list, description="Turns of the user after the question, which is turn 1."
    )

    @model_validator(mode="after")
    def _turns_of_a_script(self) -> Conversation:
        if self.kind == "single" and self.turns:
            raise ValueError("has turns, which a single conversation does not have; set kind: scripted")
        if self.kind == "scripted" and not self.turns:
            raise ValueError("kind scripted needs turns; list at least one")
        return self

    @property
    def last_turn(self) -> int:
        """Number of the user's last turn, where no rule skips it; the question is turn 1."""
        return 1 + len(self.turns)

    @property
    def functions(self) -> dict[str, str]:
        """The rules that are functions, `module:function` by their key."""
        named = {f"conversation.turns.{place}.when": turn.when for place, turn in enumerate(self.turns)}
        return {key: when for key, when in named.items() if when not in RULES}
