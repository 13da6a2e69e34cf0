"""Bases of the graders whose value is the column `outcome_LABEL`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from emoprobe.config.section import Extent, Section, Text

Value = Literal["binary", "number", "category", "preference"]
MOST_CATEGORIES = 26
# Names of families of tests, of graders whose columns have names of their own, and of the two grades of a number.
_TAKEN = frozenset({"number", "logprob", "survival", "planned", "primary", "secondary", "strict", "lenient"})


def check_label(label: str) -> str:
    """Return the label of an outcome.

    Raises:
        ValueError: it cannot be a column, or is the name of something else.
    """
    if not re.fullmatch("[a-z][a-z0-9_]{0,39}", label) or label in _TAKEN:
        taken = ", ".join(sorted(_TAKEN))
        raise ValueError(f"the label {label!r} must have lower case, digits and _ alone, and be none of {taken}")
    return label


class OutcomeGrader(Section):
    """Base of the graders whose value is the column `outcome_LABEL`."""

    name: str
    label: str | None = Field(
        None,
        description="Name of the outcome in columns, tables and sentences; null: the name of the grader, or of the "
        "function. Lower case, digits and `_`.",
    )
    margin: Annotated[float | None, Extent] = Field(
        None,
        gt=0.0,
        description="Equivalence margin; null: `analysis.margin` for binary values and categories, and no test of "
        "equivalence for numbers.",
    )

    @field_validator("label")
    @classmethod
    def _label(cls, label: str | None) -> str | None:
        return label if label is None else check_label(label)

    @property
    def outcome(self) -> str:
        """Label of the outcome."""
        return self.label or self.name

    @property
    def type(self) -> Value:
        """Type of the value."""
        return "binary"

    @property
    def values_in(self) -> tuple[float, float] | None:
        """Smallest and largest number that there can be; None: there is no limit."""
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """The categories; empty unless the value is a category."""
        return ()

    @property
    def reference(self) -> str | None:
        """Function of the user, as `module:name`; None where the grader has none."""
        return None


class TypedGrader(OutcomeGrader):
    """Base of the graders whose type the config states."""

    value: Literal["binary", "number", "category"] = Field(
        "binary", description="Type of the value: true or false, a number, or one of `categories`."
    )
    categories: Annotated[list[Text], Field(min_length=2, max_length=MOST_CATEGORIES)] | None = Field(
        None, description="The categories, with `value: category`; any other value is an error."
    )
    range: Annotated[list[float], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="Smallest and largest number that there can be. Without it a contrast in which numbers are missing "
        "is described and not tested.",
    )

    @model_validator(mode="after")
    def _typed(self) -> TypedGrader:
        if (self.categories is not None) != (self.value == "category"):
            raise ValueError("value category needs categories, and no other value takes them")
        if len(set(self.names)) < len(self.names):
            raise ValueError("categories names one twice")
        if self.range is not None and (self.value != "number" or self.range[0] >= self.range[1]):
            raise ValueError("range takes two ascending numbers, with value number")
        return self

    @property
    def type(self) -> Value:
        """Type of the value."""
        return self.value

    @property
    def values_in(self) -> tuple[float, float] | None:
        """Smallest and largest number that there can be; None: there is no limit."""
        return None if self.range is None else (self.range[0], self.range[1])

    @property
    def names(self) -> tuple[str, ...]:
        """The categories; empty unless the value is a category."""
        return tuple(self.categories or ())

    @property
    def outcome(self) -> str:
        """Label of the outcome."""
        if self.label is not None or self.reference is None:
            return super().outcome
        return re.sub(r"[^a-z0-9_]", "_", self.reference.rpartition(":")[2].lower()).strip("_")
