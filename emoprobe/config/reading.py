"""YAML files and values of the command line as plain values, before anything is validated.

Read strictly, in bounded time and memory: keys are text (also `96`) and unique, merge keys (`<<`) work, numbers are
finite, a text that only looks like a number in YAML 1.1 (`010`, `04:00:00`, a date) stays text, and one file is one
document.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from emoprobe.config.errors import BoundsError, ConfigError, shown

# Bounds on one file. Values are counted with every alias written out, as all that follows walks through them.
MAX_BYTES, MAX_DEPTH, MAX_VALUES, MAX_DIGITS = 2 << 20, 64, 200_000, 64
# Bounds on the files of one configuration.
MAX_INCLUDES, MAX_INCLUDE_DEPTH = 256, 16
_NULL, _BOOL, _INT, _FLOAT, _TEXT, _MAP, _LIST, _MERGE, _DATE, _EQUALS = (
    f"tag:yaml.org,2002:{name}"
    for name in ("null", "bool", "int", "float", "str", "map", "seq", "merge", "timestamp", "value")
)
# YAML 1.1 reads 010 as 8 and 1:30 as 90; in YAML 1.2 the second is text and the first has no two meanings.
_OLD_NUMBER = re.compile(r"[-+]?(?:0[0-9_]+|[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?)")
# YAML 1.1 reads 1e-3 as text.
_POWER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+")


def typed(value: Any, path: str = "") -> Any:
    """Parse the values of `--config`, which Snakemake passes as text where they are nested.

    Raises:
        ConfigError: a value is no YAML; the message names the key.
    """
    if isinstance(value, dict):
        return {key: typed(entry, f"{path}.{key}" if path else str(key)) for key, entry in value.items()}
    if isinstance(value, list):
        return [typed(entry, path) for entry in value]
    return _parse(value, f"--config {path}") if isinstance(value, str) else value


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper, which also quotes what a loader takes for line breaks, and `read_yaml` for a number."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Represent text; quoted where it holds U+0085, U+2028 or U+2029, or is like `1e5`."""
        misread = any(character in data for character in "\x85\u2028\u2029") or _POWER.fullmatch(data)
        quoted = '"' if misread else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=quoted)


_Dumper.add_representer(str, _Dumper.represent_str)


def to_yaml(value: Any) -> str:
    """Return plain values as YAML that `read_yaml` reads back unchanged, keys in the given order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file of one document, or a JSON file by its name.

    Raises:
        ConfigError: the file is missing, is no YAML or JSON, names a key twice, or exceeds a bound; one line.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror or error}"]) from None
    if len(content) > MAX_BYTES:
        raise BoundsError([f"{path}: is larger than {MAX_BYTES >> 20} MiB; is it a configuration?"])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BoundsError([f"{path}: is not UTF-8 text; convert it, as with iconv -t utf-8"]) from None
    return _parse_json(text, str(path)) if Path(path).suffix == ".json" else _parse(text, str(path))


def _parse_json(text: str, where: str) -> Any:
    """Parse JSON with a JSON parser: YAML refuses some characters of its strings, or reads them as line breaks."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        twice = [key for number, key in enumerate(keys) if key in keys[:number]] if len(set(keys)) < len(keys) else []
        if twice:
            raise ConfigError([f"{where}: the key {twice[0]!r:.60} is named twice"])
        return dict(pairs)

    def finite(constant: str) -> Any:
        raise ConfigError([f"{where}: {constant} is no finite number"])

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=finite)
    except json.JSONDecodeError as error:
        raise ConfigError([f"{where}: is no valid JSON: {error}"]) from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise BoundsError([f"{where}: holds a number of too many digits, or is nested too deeply"]) from None


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Merge two mappings recursively; where a value is no mapping in both, that of `over` wins."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def read_config_values(path: str | Path) -> dict[str, Any]:
    """Read a YAML file and the files that it includes, without validating the values.

    The key `include` at the top of a file lists other files, relative to it. Values of the file override those of
    included files, and later files override earlier ones.

    Raises:
        ConfigError: a file cannot be read, is no mapping, has an `include` that is no list of paths, or includes
            itself.
    """
    return _Files().read(Path(path))


def with_includes(values: Any, folder: Path) -> Any:
    """Merge plain values with the files that they include, as `read_config_values`; paths are relative to `folder`.

    Raises:
        ConfigError: as `read_config_values`.
    """
    return _Files().included(values, folder, ())


class _Files:
    """The files of one configuration. Each is read once, however often it is included."""

    def __init__(self) -> None:
        self._values: dict[Path, dict[str, Any]] = {}
        self._includes = 0

    def read(self, path: Path, readers: tuple[Path, ...] = ()) -> dict[str, Any]:
        real = path.resolve()
        if real in readers:
            raise ConfigError([f"{path}: includes itself"])
        if real not in self._values:
            values = read_yaml(path)
            if not isinstance(values, dict):
                problem = "it is empty" if values is None else f"found {type(values).__name__}"
                raise ConfigError([f"{path}: must be a mapping of sections, {problem}"])
            try:
                self._values[real] = self.included(values, path.parent, (*readers, real))
            except ConfigError as error:
                # What an included file has wrong names that file already.
                lines = [f"{path}: {line}" if line.startswith("include") else line for line in error.lines]
                raise ConfigError(lines) from None
        return self._values[real]

    def included(self, values: Any, folder: Path, readers: tuple[Path, ...]) -> Any:
        if not isinstance(values, dict) or "include" not in values:
            return values
        paths = values["include"]
        if not isinstance(paths, list) or not all(isinstance(path, str) and "\0" not in path for path in paths):
            raise ConfigError([f"include = {shown(paths)}: must be a list of paths of YAML files"])
        self._includes += len(paths)
        if self._includes > MAX_INCLUDES or len(readers) > MAX_INCLUDE_DEPTH:
            raise ConfigError(
                [f"include: more than {MAX_INCLUDES} files, or more than {MAX_INCLUDE_DEPTH} one inside another"]
            )
        result: dict[str, Any] = {}
        for path in paths:
            file = folder / Path(path).expanduser()
            if not file.is_file():
                raise ConfigError([f"include: {file} {'is no file' if file.exists() else 'does not exist'}"])
            result = merged(result, self.read(file, readers))
        return merged(result, {key: value for key, value in values.items() if key != "include"})


def _parse(text: str, where: str) -> Any:
    """Return one YAML document as plain values; null where there is none.

    Raises:
        ConfigError: one line, which begins with `where`.
    """
    try:
        node = _Composer(text).get_single_node()
        return None if node is None else _Values().of(node)[0]
    except yaml.MarkedYAMLError as error:
        # Without the snippet of the text that the library adds: it may hold a secret.
        problem, mark = error.problem or error.context or "", error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        advice = next((f"; {advice}" for words, advice in _ADVICE.items() if words in problem), "")
        raise ConfigError([f"{where}: is no valid YAML: {line}{problem}{advice}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{where}: is no valid YAML: {' '.join(str(error).split())}"]) from None
    except _SizeError as error:
        raise BoundsError([f"{where}: {error}"]) from None
    except _ContentError as error:
        raise ConfigError([f"{where}: {error}"]) from None


_ADVICE = {
    "'\\t'": "indent with blanks, not tabs",
    "found another document": "a file holds one document, so remove the `---` between them",
}


class _ContentError(ValueError):
    """Raised for valid YAML that no configuration may contain."""

    def __init__(self, place: yaml.Node | yaml.Event, text: str) -> None:
        mark = place.start_mark
        super().__init__(f"line {mark.line + 1}: {text}" if mark else text)


class _SizeError(_ContentError):
    """Raised for YAML that is nested too deeply or too large, aliases written out."""


class _Composer(yaml.SafeLoader):
    """YAML's safe loader, which refuses a document that is nested too deeply before Python's stack ends."""

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a node and those below it."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _SizeError(event, f"it is nested deeper than {MAX_DEPTH} levels")
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Values:
    """Plain values of YAML nodes with their sizes (numbers of values). A node with an anchor is read once."""

    def __init__(self) -> None:
        self._read: dict[int, tuple[Any, int]] = {}
        self._open: set[int] = set()

    def of(self, node: yaml.Node) -> tuple[Any, int]:
        """Return the value of a node and its size.

        Raises:
            _ContentError: it is not what a configuration holds.
        """
        if id(node) in self._open:
            raise _SizeError(node, "what an anchor names holds an alias of itself")
        if id(node) not in self._read:
            self._open.add(id(node))
            if isinstance(node, yaml.ScalarNode):
                self._read[id(node)] = _scalar(node), 1
            elif isinstance(node, yaml.SequenceNode) and node.tag == _LIST:
                self._read[id(node)] = self._list(node)
            elif isinstance(node, yaml.MappingNode) and node.tag == _MAP:
                self._read[id(node)] = self._mapping(node)
            else:
                raise _ContentError(node, f"the tag {node.tag!r:.60} is not accepted")
            self._open.remove(id(node))
        return self._read[id(node)]

    def _list(self, node: yaml.SequenceNode) -> tuple[list[Any], int]:
        values, size = [], 1
        for entry in node.value:
            value, more = self.of(entry)
            size = _within(node, size + more)
            values.append(value)
        return values, size

    def _mapping(self, node: yaml.MappingNode) -> tuple[dict[str, Any], int]:
        """Read a mapping. Values of merge keys come first, as in PyYAML, and its other keys override them."""
        values: dict[str, Any] = {}
        below: dict[str, Any] = {}
        named: set[str] = set()
        size = 1
        for key_node, value_node in node.value:
            merges = key_node.tag == _MERGE and isinstance(key_node, yaml.ScalarNode)
            key = "<<" if merges else _key(key_node)
            if key in named:
                advice = "; write `<<: [*a, *b]`" if merges else ""
                raise _ContentError(key_node, f"the key {key!r:.60} is named twice{advice}")
            named.add(key)
            value, more = self.of(value_node)
            size = _within(node, size + more)
            if not merges:
                values[key] = value
                continue
            for part in value if isinstance(value, list) else [value]:
                if not isinstance(part, dict):
                    raise _ContentError(key_node, "`<<` merges a mapping, or a list of mappings")
                below = part | below if below else dict(part)
        return below | values, size


def _within(node: yaml.Node, size: int) -> int:
    if size > MAX_VALUES:
        raise _SizeError(node, f"with every alias written out, this holds more than {MAX_VALUES} values")
    return size


def _key(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _ContentError(node, "a key is a list or a mapping; write a key that begins with [ or { in quotes")
    value = _scalar(node)
    if isinstance(value, int) and not isinstance(value, bool) and node.value == str(value):
        return str(value)  # this number has one notation
    if not isinstance(value, str):
        raise _ContentError(node, f"the key {node.value:.40} is read as {value!r:.40}; write it in quotes")
    return value


_PLAIN = yaml.constructor.SafeConstructor()
_OF_TAG: dict[str, Callable[[yaml.ScalarNode], Any]] = {
    _NULL: _PLAIN.construct_yaml_null,
    _BOOL: _PLAIN.construct_yaml_bool,
    _INT: _PLAIN.construct_yaml_int,
    _FLOAT: _PLAIN.construct_yaml_float,
    _TEXT: _PLAIN.construct_yaml_str,
}


def _scalar(node: yaml.ScalarNode) -> Any:
    text: str = node.value
    plain = node.style is None
    if node.tag in (_DATE, _MERGE, _EQUALS) or (plain and _OLD_NUMBER.fullmatch(text)):
        return text
    if node.tag not in (_NULL, _BOOL, _INT, _FLOAT, _TEXT):
        raise _ContentError(node, f"the tag {node.tag!r:.60} is not accepted")
    number = node.tag in (_INT, _FLOAT) or (plain and node.tag == _TEXT and _POWER.fullmatch(text))
    if number and len(text) > MAX_DIGITS:
        raise _SizeError(node, f"a number of {len(text)} characters; at most {MAX_DIGITS} are read")
    try:
        value = float(text) if number and node.tag == _TEXT else _OF_TAG[node.tag](node)
    except (ValueError, KeyError):  # a tag that the text does not fit, such as `!!bool 3`
        raise _ContentError(node, f"{text!r:.40} is no {node.tag.rpartition(':')[2]}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _ContentError(node, f"{text} is no finite number")
    return value
