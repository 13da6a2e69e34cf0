"""YAML files and values of the command line as plain values, before anything is validated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from emoprobe.config.errors import ConfigError


def typed(value: Any) -> Any:
    """Values of the command line with their types: Snakemake reads what is nested there as text throughout."""
    if isinstance(value, dict):
        return {key: typed(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [typed(entry) for entry in value]
    return yaml.safe_load(value) if isinstance(value, str) else value


class _Dumper(yaml.SafeDumper):
    """YAML's safe dumper, which also escapes the characters that a loader takes for line breaks."""

    def represent_str(self, data: str) -> yaml.ScalarNode:
        """Represent text; quoted where it holds U+0085, U+2028 or U+2029."""
        quoted = '"' if any(character in data for character in "\x85\u2028\u2029") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=quoted)


_Dumper.add_representer(str, _Dumper.represent_str)


def to_yaml(value: Any) -> str:
    """Return plain values as YAML that `read_yaml` reads back unchanged, keys in the given order."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which also refuses a mapping that names a key twice."""


def _mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen: set[Any] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if key in seen:
            raise ConfigError([f"line {key_node.start_mark.line + 1}: the key {key!r} stands there twice"])
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ConfigError([f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands there twice"])
    return found


def read_yaml(path: str | Path) -> Any:
    """Read a YAML or JSON file, refusing keys that are named twice.

    Raises:
        ConfigError: the file is missing, is no YAML or JSON, or names a key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if Path(path).suffix == ".json":  # YAML folds or refuses characters that JSON's strings may hold
            return json.loads(text, object_pairs_hook=_object)
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 (a subclass of the safe loader)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror or error}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not UTF-8 text"]) from None
    except ConfigError as error:
        raise ConfigError([f"{path}: {line}" for line in error.lines]) from None
    except json.JSONDecodeError as error:
        raise ConfigError([f"{path}: is no valid JSON: {error}"]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: is no valid YAML: {' '.join(str(error).split())}"]) from None
