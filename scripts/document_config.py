"""Write what follows from the code: config/schema.json, the tables of config/README.md and of docs/verdicts.md."""

import json
import typing
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any

from pydantic import BaseModel, Tag

from emoprobe.config.experiment import Config
from emoprobe.report.verdicts import verdict_table
from emoprobe.results import atomic

CONFIG = Path(__file__).parents[1] / "config"
INCLUDE = {
    "type": "array",
    "items": {"type": "string"},
    "description": "YAML files, relative to this one, that are read first; what this file says wins over them.",
}
BEGIN, END = "<!-- made by `make schema`: begin -->", "<!-- end -->"


def schema() -> str:
    """The JSON schema, for editors."""
    document = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
    document["properties"] = {"include": INCLUDE, **document["properties"]}
    return atomic.to_json(document)


def tables() -> str:
    """A Markdown table for each section: key, type, default, meaning."""
    parts = []
    for title, section in _sections(Config, ""):
        rows = ["| key | type | default | meaning |", "| --- | --- | --- | --- |"]
        rows += [
            f"| `{key}` | {_type(item.annotation)} | {_default(item)} | {_cell(item.description or '')} |"
            for key, item in section.model_fields.items()
            if not _sections_of(item.annotation)
        ]
        introduction = " ".join((section.__doc__ or "").split())
        parts.append("\n".join([f"### `{title}`", "", introduction, "", *rows]))
    return "\n\n".join(parts)


def _sections(parent: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section below one, with its dotted path; `NAME` stands for a key of the user's, `[]` for a list's entry."""
    for name, field in parent.model_fields.items():
        sections = _sections_of(field.annotation)
        origin = typing.get_origin(field.annotation)
        suffix = ".NAME" if origin is dict else "[]" if origin is list else ""
        for tag, section in sections.items():
            path = f"{prefix}{name}{suffix}{tag}"
            yield path, section
            yield from _sections(section, f"{path}.")


def _sections_of(annotation: Any) -> dict[str, type[BaseModel]]:
    """The sections behind an annotation, also as the value of a mapping or list, by what their headings end with."""
    if typing.get_origin(annotation) in (dict, list):
        return _sections_of(typing.get_args(annotation)[-1])
    if typing.get_origin(annotation) is typing.Annotated:  # a name, or one of several mappings
        branches = [typing.get_args(branch) for branch in typing.get_args(typing.get_args(annotation)[0])]
        return {
            f": {mark.tag}": branch
            for branch, *marks in branches
            for mark in marks
            if isinstance(mark, Tag) and isinstance(branch, type)
        }
    found = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return {"": annotation} if found else {}


def filled(page: str, content: str) -> str:
    """Return a page with new content between its two markers."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{content}\n\n{END}{rest.partition(END)[2]}"


def _type(annotation: Any) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is type(None):
        return "null"
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is typing.Annotated:
        return _type(arguments[0])
    if origin in (typing.Union, UnionType):
        return " or ".join(_type(argument) for argument in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return "mapping"
    if issubclass(annotation, BaseModel):
        keys = ", ".join(f"{key}: {_type(item.annotation)}" for key, item in annotation.model_fields.items())
        return f"`{{{keys}}}`"
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}[annotation.__name__]


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return f"`{_cell(json.dumps(value, ensure_ascii=False))}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


PAGES = {CONFIG / "README.md": tables, CONFIG.parent / "docs" / "verdicts.md": verdict_table}


def main() -> None:
    """Write the schema and the generated part of each page."""
    atomic.write_text(CONFIG / "schema.json", schema())
    for page, content in PAGES.items():
        atomic.write_text(page, filled(page.read_text(encoding="utf-8"), content()))


if __name__ == "__main__":
    main()
