"""Files that include others: `include`, a list of paths at the top of a file, relative to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from emoprobe.config.errors import ConfigError
from emoprobe.config.reading import read_yaml


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
