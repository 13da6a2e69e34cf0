"""YAML files and values of the command line as plain values, before anything is validated."""

from __future__ import annotations

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


def read_yaml(path: str | Path) -> Any:
    """Read a YAML file, refusing keys that are named twice.

    Raises:
        ConfigError: the file is missing, is no YAML, or names a key twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        return yaml.load(text, Loader=_UniqueKeyLoader)  # noqa: S506 (a subclass of the safe loader)
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror or error}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not UTF-8 text"]) from None
    except ConfigError as error:
        raise ConfigError([f"{path}: {line}" for line in error.lines]) from None
    except yaml.YAMLError as error:
        raise ConfigError([f"{path}: is no valid YAML: {' '.join(str(error).split())}"]) from None
