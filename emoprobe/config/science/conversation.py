"""How a conversation goes on after the first answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from emoprobe.config.section import Added, Section, Text, check_function, check_prefill

SINGLE, SCRIPTED, AGENT = KINDS = ("single", "scripted", "agent")
RULES = ("always", "after_wrong", "after_right")
AUTO, REQUIRED = CHOICES = ("auto", "required")


def _word_or_function(value: str, words: Sequence[str]) -> str:
    if value in words:
        return value
    try:
        return check_function(value)
    except ValueError as error:
        raise ValueError(f"must be {', '.join(words)}, or {str(error).removeprefix('must ')}") from None


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
        return _word_or_function(when, RULES)

    @field_validator("prefill")
    @classmethod
    def _prefill(cls, prefill: str | None) -> str | None:
        return check_prefill(prefill)


class Conversation(Section):
    """Course of a conversation after the first answer."""

    kind: str = Field(
        SINGLE,
        description="`single`: one answer; `scripted`: the user goes on with `turns`, each of which is answered; "
        "`agent`: the model may call `tools` and goes on with their results; or `module:function`, which takes the "
        "list of messages so far and returns the user's next message, or a list of messages, or None to end.",
    )
    turns: list[UserTurn] = Field(
        default_factory=list, description="Turns of the user after the question, which is turn 1."
    )
    max_turns: Annotated[int, Field(ge=1, le=100), Added] = Field(
        8, description="Most answers of the model in a conversation of an agent or of a function."
    )
    tools: Annotated[list[str], Added] = Field(
        default_factory=list,
        description="Tools of an agent: Python functions, each `module:function`. Type hints and docstrings in "
        "Google's style describe them to the model. A result must follow from the arguments alone.",
    )
    tool_parser: Annotated[Text | None, Added] = Field(
        None,
        description="vLLM's parser of the model's tool calls (`--tool-call-parser`), such as `hermes` for Qwen3. "
        "Required with `kind: agent`.",
    )
    tool_choice: Annotated[Text, Added] = Field(
        AUTO,
        description="Whether the first answer calls a tool: `auto`: as the model decides; `required`: it does; or the "
        "name of the tool that it calls. vLLM then lets the model write nothing else. Later answers are `auto`.",
    )
    tool_timeout: Annotated[float, Field(gt=0, le=3600), Added] = Field(
        10.0, description="Seconds after which a call of a tool is ended."
    )
    tool_memory: Annotated[int, Field(ge=1), Added] = Field(
        512, description="MiB of memory that a call of a tool may use beyond its imported module."
    )
    tool_output: Annotated[int, Field(ge=100), Added] = Field(
        4000, description="Most characters of a tool's result that the model is given."
    )

    @field_validator("kind")
    @classmethod
    def _kind(cls, kind: str) -> str:
        return _word_or_function(kind, KINDS)

    @field_validator("tools")
    @classmethod
    def _tools(cls, tools: list[str]) -> list[str]:
        names = [tool_name(check_function(tool)) for tool in tools]
        if len(set(names)) < len(names):
            raise ValueError("must name functions with different names, by which the model calls them")
        return tools

    @model_validator(mode="after")
    def _keys_of_the_kind(self) -> Conversation:
        if self.kind != SCRIPTED and self.turns:
            raise ValueError(f"has turns, which a conversation of kind {self.kind} does not have; set kind: scripted")
        if self.kind == SCRIPTED and not self.turns:
            raise ValueError("kind scripted needs turns; list at least one")
        if self.kind == AGENT and not self.tools:
            raise ValueError("kind agent needs tools; list at least one function")
        names = [tool_name(tool) for tool in self.tools]
        if self.kind == AGENT and self.tool_choice not in (*CHOICES, *names):
            raise ValueError(f"tool_choice {self.tool_choice} is none of {', '.join((*CHOICES, *names))}")
        for name in ("tools", "tool_parser", "tool_choice", "tool_timeout", "tool_memory", "tool_output"):
            if self.kind != AGENT and not self._unchanged(name):
                raise ValueError(f"has {name}, which is for kind: agent; remove it")
        if not self.is_open and not self._unchanged("max_turns"):
            raise ValueError("has max_turns, which is for kind: agent and for functions; remove it")
        return self

    @property
    def is_open(self) -> bool:
        """Whether the number of answers is known only afterwards: of an agent, or of a function."""
        return self.kind not in (SINGLE, SCRIPTED)

    @property
    def last_turn(self) -> int:
        """Number of the user's last turn, where no rule skips it; the question is turn 1, and an agent's only one."""
        return self.max_turns if self.is_open and self.kind != AGENT else 1 + len(self.turns)

    @property
    def last_answer(self) -> int:
        """Number of the last answer that there may be; the first one is that to the question."""
        return self.max_turns if self.is_open else self.last_turn

    @property
    def judged_answers(self) -> int:
        """Most answers of a conversation that a judge is shown; calls of tools are none."""
        return 1 if self.kind == AGENT else self.last_answer

    @property
    def sure_answers(self) -> int:
        """Number of answers that is certain in advance: all of a script, one of an agent or a function."""
        return 1 if self.is_open else self.last_turn

    @property
    def functions(self) -> dict[str, str]:
        """The functions that decide how it goes on, `module:function` by their key."""
        named = {f"conversation.turns.{place}.when": turn.when for place, turn in enumerate(self.turns)}
        functions = {key: when for key, when in named.items() if when not in RULES}
        if self.kind not in KINDS:
            functions["conversation.kind"] = self.kind
        return functions | {f"conversation.tools.{place}": tool for place, tool in enumerate(self.tools)}


def tool_name(reference: str) -> str:
    """Return the name by which a model calls a tool: that of the function in `module:function`."""
    return reference.rpartition(":")[2].rpartition(".")[2]
