"""Configurations and studies as files: reading and validating them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emoprobe.config.errors import GONE, MOVED, ConfigError, describe
from emoprobe.config.experiment import Config
from emoprobe.config.reading import read_config_values, read_yaml, with_includes
from emoprobe.config.study import Study, expand, is_study
from emoprobe.text import half_surrogate

# Least values that were lower in version 0.1.
LEAST = {"probes.permutations": 19}


def parse_config(values: Any, source: str = "config") -> Config:
    """Validate plain values.

    Raises:
        ConfigError: with one readable line for each mistake.
    """
    if not isinstance(values, dict):
        found = "it is empty" if values is None else f"found {type(values).__name__}"
        raise ConfigError([f"{source}: must be a mapping of sections, {found}"])
    if (place := half_surrogate(values)) is not None:
        raise ConfigError([f"{place}: holds half a surrogate pair, which no UTF-8 file can hold; write the character"])
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, Config)) from None


def load_config(path: str | Path) -> Config:
    """Read and validate a configuration file, or the config in the folder of an experiment.

    Args:
        path: the file; or a finished experiment's folder, which an earlier version may have written.

    Returns:
        Every setting, typed; a setting that the file leaves out has its default.

    Raises:
        ConfigError: the file, or one that it includes, is missing or not valid; one line for each mistake.
    """
    if Path(path).is_dir():
        return parse_config(with_moved_keys(read_yaml(Path(path) / "experiment.yaml")), str(path))
    return parse_config(read_config_values(path), str(path))


def study_of(values: Any, source: str = "config", folder: Path = Path()) -> Study:
    """The experiments of a plan: those of a study's plain values, or the one of a config's.

    Args:
        values: plain values of a study or a config, whose own includes have been read.
        source: what they are called in errors.
        folder: where a study's `base`, and what that includes, is looked for.

    Raises:
        ConfigError: as `parse_config` and `emoprobe.config.study.expand`.
    """
    if is_study(values):

        def read_base(base: Any) -> Any:
            if isinstance(base, str):
                return read_config_values(folder / Path(base).expanduser())
            return with_includes(base, folder)

        return expand(values, read_base, parse_config)
    config = parse_config(values, source)
    return Study(None, {config.experiment.name: config})


def load_study(path: str | Path) -> Study:
    """Read and validate the file of a study or of one experiment.

    Raises:
        ConfigError: as `read_config_values` and `study_of`.
    """
    return study_of(read_config_values(path), str(path), Path(path).parent)


def with_moved_keys(values: Any) -> Any:
    """A copy of plain values with every key of version 0.1 at its present place and in its present range."""
    if not isinstance(values, dict):
        return values
    moved = copy.deepcopy(values)
    for old, new in MOVED.items():
        section, _, key = old.partition(".")
        if isinstance(moved.get(section), dict) and key in moved[section]:
            value = moved[section].pop(key)
            *path, last = new.split(".")
            place = moved
            for step in path:
                place = place.setdefault(step, {})
            place.setdefault(last, value)
    for name in (*GONE, *LEAST):
        section, _, key = name.partition(".")
        if not isinstance(moved.get(section), dict) or key not in moved[section]:
            continue
        if name in GONE:
            del moved[section][key]
        elif isinstance(moved[section][key], int):
            moved[section][key] = max(LEAST[name], moved[section][key])
    return moved
