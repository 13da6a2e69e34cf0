"""Configurations as files: reading, validating, and the resolved copy that the jobs of a run work from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from emoprobe.config.errors import ConfigError, describe
from emoprobe.config.experiment import Config
from emoprobe.config.moved import with_moved_keys
from emoprobe.results import atomic


def resolved_path(config: Config, folder: Path) -> Path:
    """The absolute path at which `write_resolved` puts a config, which is named by its content."""
    digest = hashlib.sha256(atomic.to_json(config.resolved()).encode()).hexdigest()[:16]
    return (folder / f"{digest}.json").resolve()


def write_resolved(config: Config, folder: Path) -> None:
    """Write the resolved config for the jobs of a run; they may outlive a change of the user's file."""
    atomic.write_json(resolved_path(config, folder), config.resolved())


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


def parse_config(values: Any, source: str = "config") -> Config:
    """Validate plain values.

    Raises:
        ConfigError: with one readable line for each mistake.
    """
    if not isinstance(values, dict):
        raise ConfigError([f"{source}: must be a mapping of sections, found {type(values).__name__}"])
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, Config)) from None


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


def merged(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Both mappings as one: where both hold a mapping these are merged in turn, elsewhere `over` wins."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def read_config_values(path: str | Path) -> Any:
    """The values of a YAML file together with those that it includes, not yet validated.

    A key `include` at the top of a file names other files, relative to it; what the file says itself wins over them,
    and a later one over an earlier one.

    Raises:
        ConfigError: a file cannot be read, has an `include` that is no list of paths, or includes itself.
    """
    return _read(Path(path), ())


def with_includes(values: Any, folder: Path) -> Any:
    """The same for values that come from no file of their own: paths in `include` are relative to `folder`.

    Raises:
        ConfigError: as `read_config_values`.
    """
    return _included(values, folder, ())


def _read(path: Path, readers: tuple[Path, ...]) -> Any:
    if path.resolve() in readers:
        raise ConfigError([f"{path}: includes itself"])
    values = read_yaml(path)
    try:
        return _included(values, path.parent, (*readers, path.resolve()))
    except ConfigError as error:
        # What an included file has wrong names that file already.
        raise ConfigError([f"{path}: {line}" if line.startswith("include") else line for line in error.lines]) from None


def _included(values: Any, folder: Path, readers: tuple[Path, ...]) -> Any:
    if not isinstance(values, dict) or "include" not in values:
        return values
    paths = values["include"]
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ConfigError([f"include = {paths!r}: must be a list of paths of YAML files"])
    result: dict[str, Any] = {}
    for path in paths:
        if not (folder / path).is_file():
            raise ConfigError([f"include: {folder / path} does not exist"])
        part = _read(folder / path, readers)
        if not isinstance(part, dict):
            raise ConfigError([f"{folder / path}: must be a mapping of sections, found {type(part).__name__}"])
        result = merged(result, part)
    return merged(result, {key: value for key, value in values.items() if key != "include"})


def load_config(path: str | Path) -> Config:
    """Read and validate a configuration file, or the config that lies in a results folder.

    Args:
        path: the file; or a finished experiment's folder, which an earlier version may have written.

    Raises:
        ConfigError: as `read_config_values` and `parse_config`.
    """
    if Path(path).is_dir():
        return parse_config(with_moved_keys(read_yaml(Path(path) / "experiment.yaml")), str(path))
    return parse_config(read_config_values(path), str(path))
