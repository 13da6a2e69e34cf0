"""What every section of the configuration is: strict, closed and frozen."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1)]


class Extent:
    """Marks a key that decides which files there are and not what they hold, such as a number of samples.

    Such a key is in no digest: raising it makes what is new and leaves what exists.
    """


class Hidden:
    """Marks a key whose value no message repeats, as a secret is easily put there by mistake."""


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values are never coerced, numbers are finite.

    `changes_results` says whether a key of the section can change a byte of a result. Then it is part of the digests of
    the files that it can change; else it is part of none.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
    changes_results: ClassVar[bool] = True

    def content(self) -> dict[str, Any]:
        """The keys on which the content of files depends, as plain values: all but those that are an `Extent`."""
        found: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            if any(mark is Extent for mark in field.metadata):
                continue
            value = getattr(self, name)
            found[name] = (
                value.content() if isinstance(value, Section) else self.model_dump(mode="json", include={name})[name]
            )
        return found
