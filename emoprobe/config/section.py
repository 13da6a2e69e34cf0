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


class Added:
    """Marks a key that a later version added, and whose default is what results of earlier ones were made with.

    At its default such a key is in no digest, so that those results stay up to date.
    """


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors, values are never coerced, numbers are finite.

    `changes_results` says whether a key of the section can change a byte of a result. Then it is part of the digests of
    the files that it can change; else it is part of none.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, hide_input_in_errors=True)
    changes_results: ClassVar[bool] = True

    def content(self) -> dict[str, Any]:
        """The keys on which the content of files depends, as plain values: all but each `Extent`, and each `Added` key
        at its default.
        """
        found: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if self._unchanged(name) or any(mark is Extent for mark in field.metadata):
                continue
            found[name] = (
                value.content() if isinstance(value, Section) else self.model_dump(mode="json", include={name})[name]
            )
        return found

    def described(self) -> dict[str, Any]:
        """Every key as a plain value, except each `Added` key at its default."""
        found = self.model_dump(mode="json")
        for name in type(self).model_fields:
            value = getattr(self, name)
            if self._unchanged(name):
                del found[name]
            elif isinstance(value, Section):
                found[name] = value.described()
        return found

    def _unchanged(self, name: str) -> bool:
        """Whether a key is `Added` and has its default."""
        field = type(self).model_fields[name]
        return any(mark is Added for mark in field.metadata) and getattr(self, name) == field.default
