"""Errors of a configuration: one line for each mistake, with its path, its value and what is accepted."""

from __future__ import annotations

import difflib
import re
import typing
from types import UnionType
from typing import Any

from pydantic import BaseModel, Tag, ValidationError

from emoprobe.config.section import Hidden

# Keys of version 0.1 that have another place now, and those that have none: probes choose a cell and not a strength,
# and no interval is drawn from resamples.
MOVED = {
    "workers.max_model_len": "generation.engine.max_model_len",
    "workers.tensor_parallel": "generation.engine.tensor_parallel",
    "workers.compile": "generation.engine.compile",
    "workers.extra_args": "generation.engine.extra_args",
    "generation.timeout": "workers.timeout",
    "capture.batch_tokens": "workers.batch_tokens",
    "capture.memory_gib": "workers.memory_gib",
}
GONE = ("probes.inner_folds", "probes.strengths", "probes.bootstrap")
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@|(?<=\?)[^\s'\"]+")


class ConfigError(ValueError):
    """Raised for an invalid configuration; `lines` has one line for each mistake."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


class BoundsError(ConfigError):
    """Raised for a file that exceeds the bounds on time and memory, or is no text."""


def describe(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """Return one line for each invalid place: `path = value: what is accepted`.

    The value of a key that is marked `Hidden` is not repeated, nor are credentials in a URL.
    """
    lines: dict[str, str] = {}
    # With neither the input nor what validators kept of it, which may hold a secret.
    for item in error.errors(include_url=False, include_context=False):
        path, accepted_keys, hidden = _walk(root, item["loc"])
        if item["type"] == "extra_forbidden":
            moved = (
                f"has moved to {MOVED[path]}"
                if path in MOVED
                else "is no longer used; remove it"
                if path in GONE
                else None
            )
            line = f"{path}: {moved or 'unknown key' + _nearest(str(item['loc'][-1]), accepted_keys)}"
        elif item["type"] == "missing":
            line = f"{path}: is missing"
        else:
            message = item["msg"].removeprefix("Value error, ")
            if item["type"] != "value_error":
                message = message[0].lower() + message[1:]
            if item["type"] == "string_type" and isinstance(item["input"], bool | int | float) and not hidden:
                message += "; write it in quotes"
            value = "" if hidden or isinstance(item["input"], dict | BaseModel) else f" = {shown(item['input'])}"
            line = f"{path or 'config'}{value}: {message}"
        # The branches of a union each complain about the same place: one line says it all.
        lines[path] = f"{lines[path]}; or {line.split(': ', 1)[1]}" if path in lines else line
    return list(lines.values())


def shown(value: Any) -> str:
    """Return a value as text for a message: one line, at most 80 characters, without the credentials of URLs."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of more digits than Python writes
        text = f"a large {type(value).__name__}"
    text = _CREDENTIALS.sub("…", text)
    return text if len(text) <= 80 else text[:77] + "..."


def _nearest(key: str, accepted: list[str]) -> str:
    near = difflib.get_close_matches(key, accepted, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} (known: {', '.join(accepted)})"


def _walk(root: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[str, list[str], bool]:
    """Return a location's dotted path without pydantic's union tags, the keys of its parent, and whether it is hidden.

    A validator of a whole section has the section's location: what it shows is a mapping, which is never repeated.
    """
    path: list[str] = []
    model: type[BaseModel] | None = root
    known = list(root.model_fields)
    inside_mapping = hidden = False
    branches: dict[str, Any] = {}
    for step in loc:
        if step in branches:
            model, inside_mapping = _model_of(branches[str(step)])
            branches = {}
        elif model is not None and not inside_mapping:
            if step == model.__name__ or "[" in str(step):  # a union's branch: a section, or `literal[…]`
                continue
            known = list(model.model_fields)
            path.append(str(step))
            field = model.model_fields.get(str(step))
            hidden = hidden or (field is not None and any(mark is Hidden for mark in field.metadata))
            model, inside_mapping = _model_of(field.annotation) if field is not None else (None, False)
            branches = _tagged(field.annotation) if field is not None else {}
        elif inside_mapping:
            path.append(str(step))
            inside_mapping = False
        elif isinstance(step, int):
            path.append(str(step))
        # Anything else is the name of a union's branch, such as `list[int]`.
    return ".".join(path), known, hidden


def _tagged(annotation: Any) -> dict[str, Any]:
    """Return the branches of a field's union, or of a list of unions, by their tags."""
    arguments = typing.get_args(annotation)
    tags = [mark.tag for mark in arguments[1:] if isinstance(mark, Tag)]
    if tags:
        return {tags[0]: arguments[0]}
    return {tag: branch for argument in arguments for tag, branch in _tagged(argument).items()}


def _model_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """Return the section class in a field's annotation, and whether it is the value of a mapping."""
    origin = typing.get_origin(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if origin in (dict, list):
        value, nested = _model_of(typing.get_args(annotation)[-1])
        return (None, False) if nested else (value, value is not None)
    if origin in (typing.Union, UnionType):
        for branch in typing.get_args(annotation):
            branch_model = _model_of(branch)
            if branch_model[0] is not None:
                return branch_model
    return None, False


def lines_by_experiment(mistakes: dict[str, list[str]], *, several: bool) -> list[str]:
    """Return each mistake once, with the experiments that have it if there are `several`."""
    if not several:
        return list(mistakes)
    lines = []
    for line, names in mistakes.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        lines.append(f"{line} (in {', '.join(names[:3])}{more})")
    return lines
