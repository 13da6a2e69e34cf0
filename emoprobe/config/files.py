"""Configurations and studies as files: reading and validating them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from emoprobe.config.errors import ConfigError, describe
from emoprobe.config.experiment import Config
from emoprobe.config.inclusion import read_config_values, with_includes
from emoprobe.config.moved import with_moved_keys
from emoprobe.config.reading import read_yaml
from emoprobe.config.study import Study, expand, is_study


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
