"""Base class of all sections, marks of keys, and validators of names and URLs."""

from __future__ import annotations

import keyword
import re
from collections.abc import Mapping
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
        """Return the keys that the content of files depends on, as plain values.

        That is all but `Extent` keys, and `Added` keys at their default.
        """
        values: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if self._unchanged(name) or any(mark is Extent for mark in field.metadata):
                continue
            values[name] = (
                value.content() if isinstance(value, Section) else self.model_dump(mode="json", include={name})[name]
            )
        return values

    def described(self) -> dict[str, Any]:
        """Return every key as a plain value, except `Added` keys at their default."""
        values = self.model_dump(mode="json")
        for name in type(self).model_fields:
            value = getattr(self, name)
            if self._unchanged(name):
                del values[name]
            elif isinstance(value, Section):
                values[name] = value.described()
            elif isinstance(value, dict):
                values[name] |= {key: entry.described() for key, entry in value.items() if isinstance(entry, Section)}
        return values

    def _unchanged(self, name: str) -> bool:
        """Return whether a key is `Added` and has its default."""
        field = type(self).model_fields[name]
        return any(mark is Added for mark in field.metadata) and getattr(self, name) == field.get_default(
            call_default_factory=True
        )


def dotted(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of nested sections by their keys, joined by dots."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


CONTROL = "control"
FILLER = "filler"
_FORMAT = re.compile(r"reformatted-[1-9]\d*")
# Folders of an experiment that hold something other than a variant.
RESERVED_NAMES = frozenset(
    {
        "activations",
        "benchmarks",
        "explorer",
        "features",
        "figures",
        "judgements",
        "logs",
        "models",
        "probes",
        "samples",
        "steering",
        "tables",
    }
)
NAME = r"^[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?$"
MAX_NAME = 64
# Variables of the environment are in capitals by convention, but for those of proxies.
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*|(?:https?|ftp|all|no)_proxy")
# A run of capitals and digits as long as this, such as an access key of AWS.
_LIKE_A_KEY = re.compile(r"(?=.*\d)[A-Z0-9]{16,}")


def format_name(number: int) -> str:
    """Return the name of the variant that has a format of the prompt, counted from 1."""
    return f"reformatted-{number}"


def is_format(name: str) -> bool:
    """Return whether a variant has the prompt of control in another format (`prompt.formats`)."""
    return _FORMAT.fullmatch(name) is not None


def check_name(name: str) -> str:
    """Return the name if it can be a folder's name and a wildcard.

    Raises:
        ValueError: it has other characters, is too long, or is taken by the layout.
    """
    if not re.fullmatch(NAME, name) or len(name) > MAX_NAME:
        raise ValueError(f"{name!r} is no valid name: letters, digits, _ and - inside, at most {MAX_NAME} characters")
    if name.lower() in RESERVED_NAMES:
        raise ValueError(f"{name!r} is a folder of the results; choose another name")
    return name


def check_function(reference: str) -> str:
    """Return a reference to a function, `module:function`.

    Raises:
        ValueError: it is none.
    """
    module, colon, function = reference.partition(":")
    parts = [*module.split("."), *function.split(".")]
    if not colon or not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise ValueError("must name a function as `module:function`")
    return reference


def check_prefill(prefill: str | None) -> str | None:
    """Return the beginning of an answer.

    Raises:
        ValueError: it holds nothing but white space, which chat templates remove.
    """
    if prefill is not None and not prefill.strip():
        raise ValueError("must hold more than white space")
    return prefill


def check_variable(name: str) -> str:
    """Return a name of an environment variable. What is refused is not repeated, as it may be the secret itself.

    Raises:
        ValueError: it is none, or looks like a key.
    """
    if not _VARIABLE.fullmatch(name) or len(name) > MAX_NAME or _LIKE_A_KEY.search(name):
        raise ValueError(
            "is no name of an environment variable (capitals, digits and _); if it is a key, change the key, export it "
            "as in `export MY_KEY=…`, and write the name MY_KEY here"
        )
    return name


def check_url(url: str) -> str:
    """Return the URL of a server without a slash at its end. What is refused is not repeated.

    Raises:
        ValueError: it is none, or has credentials, a query or a fragment in it.
    """
    if not re.fullmatch(r"https?://[^\s/@?#\\]+(/[^\s?#]*)?", url):
        raise ValueError(
            "must be an http:// or https:// URL without credentials, query or blank; the key goes to the variable that "
            "workers.api_key_env names"
        )
    return url.rstrip("/")


def is_local(source: str) -> bool:
    """Return whether `source`, of a model or data set, is a path: absolute, or beginning with `.` or `~`."""
    return source.startswith((".", "/", "~"))
