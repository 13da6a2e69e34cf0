"""The process of a run: its hardware, the commands of its jobs, and the resolved configs that these read."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import emoprobe
from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import Study
from emoprobe.results import atomic

# Inside the wheel, `scripts` and `server` lie here: as packages of their own their names would clash with others.
BUNDLED = "_jobs"


def hardware(configs: Iterable[Config]) -> str:
    """Return what the servers that are started run on, `cuda` or `cpu`: which lock and which environment fit.

    That is what SLURM jobs ask for, else what this machine has.
    """
    shapes = [shape for config in configs for shape in config.workers.slurm]
    gpus = any(shape.gpus for shape in shapes) if shapes else shutil.which("nvidia-smi") is not None
    return "cuda" if gpus else "cpu"


def code_folder() -> Path:
    """The folder of `scripts/` and `server/`: beside the library in a checkout, inside it where it is installed."""
    library = Path(emoprobe.__file__).absolute().parent
    return library / BUNDLED if (library / BUNDLED).is_dir() else library.parent


def script_command(python: str, code: Path, name: str) -> str:
    """The command of one of the scripts, for a shell."""
    return shlex.join([python, str(code / "scripts"), name])


def include_folder(values: Mapping[str, Any], config_files: Iterable[str | Path]) -> Path:
    """The folder from which a module's config includes files.

    Args:
        values: the config that a module is given.
        config_files: of the workflow that gives it: a config that it has read from one includes files beside it.

    Returns:
        The working directory, unless all included files lie beside one of the config files and not here.
    """
    names = values.get("include")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return Path()
    folders = [Path(), *(Path(path).parent for path in config_files)]
    return next((folder for folder in folders if all((folder / name).is_file() for name in names)), Path())


def quoted(path: Path) -> str:
    """A path as one word of a shell."""
    return shlex.quote(str(path))


def plan_folder(study: Study, parent: Path) -> Path:
    """The path of the folder with the resolved configs of a plan, which is named by their content."""
    content = atomic.to_json({name: config.resolved() for name, config in study.configs.items()})
    return parent / hashlib.sha256(content.encode()).hexdigest()[:16]


def write_plan(study: Study, folder: Path) -> None:
    """Write each experiment's resolved config as `{experiment}.json`: jobs may outlive a change of the user's file.

    A folder that is there holds the same already.
    """
    if not folder.is_dir():
        # Another process may write the same at the same time.
        with atomic.directory(folder, [f"{name}.json" for name in study.configs]) as temporary:
            for name, config in study.configs.items():
                (temporary / f"{name}.json").write_text(atomic.to_json(config.resolved()), encoding="utf-8")


def check_text(study: Study, *paths: Path) -> None:
    """Check that paths and the configuration are text: servers, requests and JSON files hold UTF-8 alone.

    Args:
        study: the plan.
        paths: the folders of the run, absolute.

    Raises:
        ConfigError: a folder's name is not UTF-8, or a value holds half a surrogate pair.
    """
    wrong = [path for path in dict.fromkeys(paths) if not _is_text(str(path))]
    lines = [
        f"{os.fsencode(path)!r}: the path is not UTF-8; rename the folder, or start the run in another one"
        for path in wrong
        if not any(other in path.parents for other in wrong)
    ]
    lines += [
        f"{name}: {key} = {value!a}: is not UTF-8"
        for name, config in study.configs.items()
        for key, value in _texts(config.resolved(), "")
        if not _is_text(f"{key}{value}")
    ]
    if lines:
        raise ConfigError(lines)


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text below a value with its dotted key."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _texts(each, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for each in value:
            yield from _texts(each, key)
    elif isinstance(value, str):
        yield key, value
