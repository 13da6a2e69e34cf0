"""Configurations and studies as files: reading and validating them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from emoprobe.config.errors import ConfigError, describe
from emoprobe.config.experiment import Config
from emoprobe.config.moved import with_moved_keys
from emoprobe.config.study import Study, expand, is_study


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


def load_config(path: str | Path) -> Config:
    """Read and validate a configuration file, or the config that lies in a results folder.

    Args:
        path: the file; or a finished experiment's folder, which an earlier version may have written.

    Raises:
        ConfigError: as `read_yaml` and `parse_config`.
    """
    if Path(path).is_dir():
        return parse_config(with_moved_keys(read_yaml(Path(path) / "experiment.yaml")), str(path))
    return parse_config(read_yaml(path), str(path))


def study_of(values: Any, source: str = "config", folder: Path = Path()) -> Study:
    """The experiments of a plan: those of a study's plain values, or the one of a config's.

    Args:
        values: plain values of a study or a config.
        source: what they are called in errors.
        folder: where a study's `base` is looked for.

    Raises:
        ConfigError: as `parse_config` and `emoprobe.config.study.expand`.
    """
    if is_study(values):
        return expand(values, lambda base: read_yaml(folder / Path(base).expanduser()), parse_config)
    config = parse_config(values, source)
    return Study(None, {config.experiment.name: config})


def load_study(path: str | Path) -> Study:
    """Read and validate the file of a study or of one experiment.

    Raises:
        ConfigError: as `read_yaml` and `study_of`.
    """
    return study_of(read_yaml(path), str(path), Path(path).parent)
