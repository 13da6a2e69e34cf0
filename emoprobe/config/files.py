"""Read and validate the YAML files of experiments and of studies.

A study derives many experiments from one base. Its file has the sections `study`, `base` (the path of a config,
relative to the file, or its sections), `patch` (for every experiment), and `grid` or `experiments`. A grid has axes,
each with named patches; every combination is an experiment called `STUDY-NAME-NAME…`. `experiments` lists the named
patches one by one instead. A mapping in a patch is merged into the base, any other value replaces it.
"""

from __future__ import annotations

import copy
import itertools
import math
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from emoprobe.config.errors import GONE, MOVED, ConfigError, describe, lines_by_experiment
from emoprobe.config.experiment import Config
from emoprobe.config.reading import merged, read_config_values, read_yaml, with_includes
from emoprobe.config.section import Section, check_name
from emoprobe.text import half_surrogate

Patch = dict[str, Any]
MAX_EXPERIMENTS = 10_000
# Least values that were lower in version 0.1.
LEAST = {"probes.permutations": 19}


class StudyHead(Section):
    """Name of the study."""

    name: str = Field(description="Folder under `results/` for tables and figures across the experiments.")

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_name(name)


class StudyFile(Section):
    """A base config and its patches."""

    study: StudyHead
    base: str | dict[str, Any] = Field(
        default_factory=dict, description="Path of a config, relative to this file; or its sections."
    )
    patch: Patch = Field(default_factory=dict, description="Changes to the base for every experiment.")
    grid: dict[str, dict[str, Patch]] = Field(
        default_factory=dict, description="Axis → name → patch; every combination of patches is an experiment."
    )
    experiments: dict[str, Patch] = Field(
        default_factory=dict, description="Name → patch; each is an experiment. Use instead of a grid."
    )

    @field_validator("experiments", mode="before")
    @classmethod
    def _null_patches(cls, patches: Any) -> Any:
        """`plain:` with nothing after it means `plain: {}`."""
        return _filled(patches)

    @field_validator("grid", mode="before")
    @classmethod
    def _null_grid(cls, grid: Any) -> Any:
        return {axis: _filled(patches) for axis, patches in grid.items()} if isinstance(grid, dict) else grid

    @model_validator(mode="after")
    def _one_way(self) -> StudyFile:
        if bool(self.grid) == bool(self.experiments):
            raise ValueError("must have either grid or experiments")
        for axis, patches in self.grid.items():
            if not patches:
                raise ValueError(f"grid.{axis} has no patches")
        for name in [*self.experiments, *(name for patches in self.grid.values() for name in patches)]:
            check_name(name)
        return self

    @model_validator(mode="after")
    def _experiments_have_names_of_their_own(self) -> StudyFile:
        # Before they are listed, as a short file can have more than there is memory for.
        count = max(len(self.experiments), math.prod(map(len, self.grid.values())))
        if count > MAX_EXPERIMENTS:
            raise ValueError(f"has {count} experiments, at most {MAX_EXPERIMENTS} are accepted")
        named: dict[str, tuple[str, ...]] = {}
        for chosen in itertools.product(*self.grid.values()):
            if (other := named.setdefault("-".join(chosen), chosen)) != chosen:
                raise ValueError(
                    f"grid: {' with '.join(other)} and {' with '.join(chosen)} give two experiments one name; rename "
                    "one of these patches"
                )
        return self

    def patches(self) -> dict[str, list[Patch]]:
        """Return experiment → its patches to the base, in order."""
        if self.experiments:
            return {f"{self.study.name}-{name}": [self.patch, patch] for name, patch in self.experiments.items()}
        return {
            "-".join([self.study.name, *(name for name, _ in chosen)]): [self.patch, *(patch for _, patch in chosen)]
            for chosen in itertools.product(*(patches.items() for patches in self.grid.values()))
        }


@dataclass(frozen=True)
class Study:
    """The experiments of one run, by name. `name` is None for a single experiment, which has no study tables."""

    name: str | None
    configs: dict[str, Config]


def is_study(values: Any) -> bool:
    """Return whether plain values describe a study."""
    return isinstance(values, dict) and "study" in values


def parse_config(values: Any, source: str = "config") -> Config:
    """Validate plain values.

    Raises:
        ConfigError: one line for each mistake.
    """
    if not isinstance(values, dict):
        problem = "it is empty" if values is None else f"found {type(values).__name__}"
        raise ConfigError([f"{source}: must be a mapping of sections, {problem}"])
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
    """Return the experiments that plain values describe: those of a study, or the one of a config.

    Args:
        values: plain values of a study or a config, whose own includes have been read.
        source: name of the values in errors.
        folder: folder that the paths of a study's `base` and of its includes are relative to.

    Raises:
        ConfigError: a config or the study is not valid; one line for each mistake.
    """
    if is_study(values):
        return _expand(values, folder)
    config = parse_config(values, source)
    return Study(None, {config.experiment.name: config})


def load_study(path: str | Path) -> Study:
    """Read and validate the file of a study or of one experiment.

    Raises:
        ConfigError: as `read_config_values` and `study_of`.
    """
    return study_of(read_config_values(path), str(path), Path(path).parent)


def with_moved_keys(values: Any) -> Any:
    """Return a copy of plain values with the keys of version 0.1 moved to their present place and range."""
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


def _expand(values: dict[str, Any], folder: Path) -> Study:
    """Return the experiments of a study's file; `folder` is where its base lies.

    Raises:
        ConfigError: one line for each mistake, with the experiments that have it.
    """
    try:
        file = StudyFile.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, StudyFile)) from None
    if isinstance(file.base, str):
        path = folder / Path(file.base).expanduser()
        if not path.exists():
            raise ConfigError([f"base: {path} does not exist; the path is relative to the file of the study"])
        base = read_config_values(path)
    else:
        base = with_includes(file.base, folder)
    if is_study(base):
        raise ConfigError(["base: names a study, not an experiment"])
    patches = file.patches()
    configs: dict[str, Config] = {}
    mistakes: dict[str, list[str]] = {}
    for name, changes in patches.items():
        patched = reduce(merged, [*changes, {"experiment": {"name": name}}], base)
        try:
            configs[name] = parse_config(patched, name)
        except ConfigError as error:
            for line in error.lines:
                mistakes.setdefault(line, []).append(name)
    if mistakes:
        raise ConfigError(lines_by_experiment(mistakes, several=True))
    return Study(file.study.name, configs)


def _filled(patches: Any) -> Any:
    return (
        {name: {} if patch is None else patch for name, patch in patches.items()}
        if isinstance(patches, dict)
        else patches
    )
