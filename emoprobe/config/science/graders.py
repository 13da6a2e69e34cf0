"""Graders: what is measured of every answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from emoprobe.config.science.judge import JudgeGrader
from emoprobe.config.science.outcome_grader import OutcomeGrader, TypedGrader, Value, check_label
from emoprobe.config.section import Extent, Section, Text, check_function

LexicalName = Literal["refusal", "apology", "hedging", "self_correction", "sentiment"]
# Graders that may be listed by name alone.
GraderName = Literal[
    "number", "logprob", "choice", "refusal", "apology", "hedging", "self_correction", "sentiment"
]  # fmt: skip
NORMALISATIONS = Literal["none", "plain", "squad"]


class LogprobGrader(Section):
    """The grader `logprob`: probability of the gold answer by teacher forcing."""

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


class ChoiceGrader(OutcomeGrader):
    """The grader `choice`: whether the gold option is the most likely one of a multiple-choice question."""

    name: Literal["choice"] = Field("choice", description="Name of the grader.")
    lead: str = Field("Answer:", description="As `lead` of `logprob`.")
    option: Text = Field(
        " {option}",
        description="Form of an option after `lead`; `{option}` is its text, `{letter}` its letter.",
    )
    normalise: Literal["none", "characters", "bytes"] = Field(
        "none",
        description="What the log-likelihood of an option is divided by: nothing (`acc` of lm-evaluation-harness), its "
        "characters (`acc_norm`) or its bytes in UTF-8 (`acc_bytes`).",
    )

    @field_validator("option")
    @classmethod
    def _option(cls, option: str) -> str:
        if "{option}" not in option and "{letter}" not in option:
            raise ValueError("must contain the placeholder {option} or {letter}")
        return option

    @property
    def asked(self) -> dict[str, str]:
        """The keys that decide what the model is asked."""
        return {"lead": self.lead, "option": self.option}


class TextGrader(OutcomeGrader):
    """The grader `text`: whether the answer equals, contains or matches a text."""

    name: Literal["text"] = Field("text", description="Name of the grader.")
    match: Literal["exact", "contains", "regex"] = Field(
        "exact", description="exact: the whole answer; contains: anywhere in it; regex: a search by Python's `re`."
    )
    pattern: Text | Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="Text to compare with, or several, of which one suffices; null: the gold answer."
    )
    normalise: NORMALISATIONS | None = Field(
        None,
        description="Of answer and text alike, but for a regular expression. plain: Unicode NFKC, lower case, one "
        "space for white space, no punctuation at either end; squad: lower case without punctuation and the articles "
        "a, an, the; none: as it is. null: plain, and none with regex.",
    )

    @model_validator(mode="after")
    def _regex(self) -> TextGrader:
        if self.match == "regex":
            if self.pattern is None:
                raise ValueError("match regex needs pattern")
            for pattern in self.patterns:
                try:
                    re.compile(pattern)
                except re.error as error:
                    raise ValueError(f"pattern {pattern!r} is no regular expression ({error})") from None
        return self

    @property
    def patterns(self) -> list[str]:
        """The texts to compare with; empty: the gold answer."""
        return [] if self.pattern is None else [self.pattern] if isinstance(self.pattern, str) else self.pattern


class LexicalGrader(OutcomeGrader):
    """A grader that looks for phrases of a list: `refusal`, `apology`, `hedging`, `self_correction` or `sentiment`."""

    name: LexicalName = Field(description="Name of the grader.")

    @property
    def type(self) -> Value:
        """Type of the value."""
        return "number" if self.name == "sentiment" else "binary"

    @property
    def values_in(self) -> tuple[float, float] | None:
        """Smallest and largest number that there can be; None: there is no limit."""
        return (-1.0, 1.0) if self.name == "sentiment" else None


class FunctionGrader(TypedGrader):
    """The grader `function`: a Python function of yours."""

    name: Literal["function"] = Field("function", description="Name of the grader; it may be left out.")
    function: Text = Field(
        description="`module:name` of a function that takes an `emoprobe.graders.registry.Answer` and returns the "
        "value, or None where there is none. The module lies in the working directory or is installed."
    )

    @field_validator("function")
    @classmethod
    def _function(cls, function: str) -> str:
        return check_function(function)

    @property
    def reference(self) -> str | None:
        """Function of the user, as `module:name`."""
        return self.function


class ScorerGrader(TypedGrader):
    """The grader `scorer`: a scorer of Inspect AI that needs no model."""

    name: Literal["scorer"] = Field("scorer", description="Name of the grader; it may be left out.")
    scorer: Text = Field(description="`module:name` of the scorer, such as `inspect_ai.scorer:includes`.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Arguments of the scorer.")

    @field_validator("scorer")
    @classmethod
    def _scorer(cls, scorer: str) -> str:
        return check_function(scorer)

    @property
    def reference(self) -> str | None:
        """The scorer, as `module:name`."""
        return self.scorer


SECTIONS: dict[str, type[Section]] = {
    "logprob": LogprobGrader,
    "choice": ChoiceGrader,
    "text": TextGrader,
    "lexical": LexicalGrader,
    "function": FunctionGrader,
    "scorer": ScorerGrader,
    "judge": JudgeGrader,
}


def _kind(entry: Any) -> str | None:
    """The key of `SECTIONS` that an entry of `graders` belongs to; `name` for a name alone."""
    if isinstance(entry, str):
        return "name"
    if isinstance(entry, Section):
        name: Any = getattr(entry, "name", None)
    elif isinstance(entry, Mapping):
        name = entry.get("name", next((key for key in ("function", "scorer") if key in entry), None))
    else:
        return None
    return "lexical" if name in get_args(LexicalName) else name if name in SECTIONS else None


Entry = Annotated[
    Annotated[GraderName, Tag("name")]
    | Annotated[LogprobGrader, Tag("logprob")]
    | Annotated[ChoiceGrader, Tag("choice")]
    | Annotated[TextGrader, Tag("text")]
    | Annotated[LexicalGrader, Tag("lexical")]
    | Annotated[FunctionGrader, Tag("function")]
    | Annotated[ScorerGrader, Tag("scorer")]
    | Annotated[JudgeGrader, Tag("judge")],
    Discriminator(
        _kind,
        custom_error_type="grader",
        custom_error_message="is no grader; name one of "
        + ", ".join((*get_args(GraderName), "text", "function", "scorer", "judge")),
    ),
]
Graders = list[Entry]


def complete(graders: Graders) -> Graders:
    """Return the graders of an experiment, each but `number` with its settings.

    Raises:
        ValueError: there is none, a label is no name or that of two, or two of the kind `choice` ask the model
            differently, or two judges of one trait have values of different kinds.
    """
    found: Graders = [_settings(entry) if isinstance(entry, str) and entry != "number" else entry for entry in graders]
    labels = [label_of(entry) for entry in found]
    if not labels:
        raise ValueError("must name at least one grader")
    for entry in found:
        if isinstance(entry, OutcomeGrader):
            check_label(entry.outcome)
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"names a grader twice ({', '.join(twice)}); give each of one kind a label of its own")
    if len({tuple(entry.asked.items()) for entry in found if isinstance(entry, ChoiceGrader)}) > 1:
        raise ValueError("all graders of the kind choice must have one lead and one option")
    traits: dict[str | None, list[Any]] = {}
    for entry in found:
        if isinstance(entry, JudgeGrader) and not entry.guess:
            scale = [entry.type, sorted(entry.names), entry.values_in, entry.compare_with]
            if traits.setdefault(entry.trait, scale) != scale:
                raise ValueError(
                    f"judge {entry.outcome} has other values than another judge of the same trait; give each a trait"
                )
    return found


def _settings(name: GraderName) -> Entry:
    if name == "logprob":
        return LogprobGrader()
    return ChoiceGrader() if name == "choice" else LexicalGrader(name=name)  # type: ignore[arg-type]


def label_of(entry: Entry) -> str:
    """Return the label of an entry of `graders`."""
    return entry if isinstance(entry, str) else entry.outcome if isinstance(entry, OutcomeGrader) else entry.name
