"""Chat templates and tokenizers, read from a model's directory, and the environment that templates are rendered in."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Encoded = tuple[list[int], Sequence[tuple[int, int]] | None]


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as the renderer uses it.

    `encode` takes a text, and whether to give the character offsets of each token, and adds no special tokens; it gives
    None in place of the offsets where the tokenizer knows none. `decode` keeps special tokens. `names` are the special
    tokens by name (`bos_token`, …), which templates use, `control` the texts that are read as special tokens.
    """

    encode: Callable[[str, bool], Encoded]
    decode: Callable[[Sequence[int]], str]
    names: Mapping[str, str]
    control: frozenset[str]


def read_templates(directory: Path) -> str | dict[str, str] | None:
    """The chat templates in a model's directory, found where transformers finds them.

    Raises:
        OSError, ValueError: a file cannot be read.
    """
    main, others = directory / "chat_template.jinja", directory / "additional_chat_templates"
    if main.is_file():
        templates = {path.stem: path.read_text(encoding="utf-8") for path in sorted(others.glob("*.jinja"))}
        return templates | {"default": main.read_text(encoding="utf-8")}
    kept = _json(directory / "tokenizer_config.json").get("chat_template")
    if kept is None:
        kept = _json(directory / "chat_template.json").get("chat_template")
    if isinstance(kept, list):
        return {entry["name"]: entry["template"] for entry in kept}
    return kept if kept is None or isinstance(kept, dict) else str(kept)


def read_vocabulary(directory: Path) -> Vocabulary:
    """Read the tokenizer in a model's directory from its files, without transformers.

    Raises:
        OSError, ValueError: a file cannot be read; tokenizers raises bare exceptions of its own.
    """
    from tokenizers import Tokenizer  # it takes 30 ms to import, where transformers takes seconds

    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(text: str, offsets: bool) -> Encoded:
        if offsets:
            encoding = tokenizer.encode(text, add_special_tokens=False)
            return encoding.ids, encoding.offsets
        return next(iter(tokenizer.encode_batch_fast([text], add_special_tokens=False))).ids, None

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), skip_special_tokens=False))

    added = tokenizer.get_added_tokens_decoder().values()
    control = frozenset(token.content for token in added if token.special)
    return Vocabulary(encode, decode, _special_names(directory), control)


def _special_names(directory: Path) -> dict[str, str]:
    """Special tokens by name, as templates use them."""
    names: dict[str, str] = {}
    settings = _json(directory / "tokenizer_config.json")
    named = settings.get("model_specific_special_tokens") or settings.get("extra_special_tokens")
    for values in (_json(directory / "special_tokens_map.json"), named, settings):
        for name, value in (values if isinstance(values, dict) else {}).items():
            text = value.get("content") if isinstance(value, dict) else value
            if name.endswith("_token") and isinstance(text, str):
                names[name] = text
    return names


def _json(path: Path) -> dict[str, Any]:
    values = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return values if isinstance(values, dict) else {}


class _Generation(Extension):
    """`{% generation %}` marks what the assistant wrote, for training; in a prompt it says nothing."""

    tags = {"generation"}  # noqa: RUF012 (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


def _environment() -> ImmutableSandboxedEnvironment:
    """The environment in which transformers renders templates, without its clock."""

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: Any = None,
        separators: Any = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    return environment


ENVIRONMENT = _environment()
