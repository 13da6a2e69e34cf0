"""Studies: many experiments from one base and the patches to it.

A study's file has the sections `study`, `base` (a config's path, relative to the file, or its sections), `patch` (for
every experiment), and `grid` or `experiments`. A grid has axes, each with named patches; every combination is an
experiment called `STUDY-NAME-NAME…`. `experiments` lists named patches instead. In a patch a mapping is merged into
what is there, anything else replaces it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import Field, ValidationError, field_validator, model_validator

from emoprobe.config.errors import ConfigError, describe, lines_by_experiment
from emoprobe.config.experiment import Config
from emoprobe.config.names import check_name
from emoprobe.config.reading import merged
from emoprobe.config.section import Section

Patch = dict[str, Any]
MAX_EXPERIMENTS = 10_000


class StudyHead(Section):
    """What the study is called."""

    name: str = Field(description="Folder under `results/` of what is computed from all experiments.")

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_name(name)


class StudyFile(Section):
    """A base and its patches."""

    study: StudyHead
    base: str | dict[str, Any] = Field(
        default_factory=dict, description="Path of a configuration, relative to this file; or its sections."
    )
    patch: Patch = Field(default_factory=dict, description="Changes to the base for every experiment.")
    grid: dict[str, dict[str, Patch]] = Field(
        default_factory=dict, description="Axis → name → patch; every combination is an experiment."
    )
    experiments: dict[str, Patch] = Field(
        default_factory=dict, description="Name → patch: the experiments one by one, instead of a grid."
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
            raise ValueError("a study has either grid or experiments")
        for axis, patches in self.grid.items():
            if not patches:
                raise ValueError(f"grid.{axis} names no patch")
        for name in [*self.experiments, *(name for patches in self.grid.values() for name in patches)]:
            check_name(name)
        return self

    def patches(self) -> dict[str, list[Patch]]:
        """Experiment → the patches that make it from the base, in order."""
        if self.experiments:
            return {f"{self.study.name}-{name}": [self.patch, patch] for name, patch in self.experiments.items()}
        return {
            "-".join([self.study.name, *(name for name, _ in chosen)]): [self.patch, *(patch for _, patch in chosen)]
            for chosen in itertools.product(*(patches.items() for patches in self.grid.values()))
        }


@dataclass(frozen=True)
class Study:
    """The experiments of one plan, by name. `name` is null for a single experiment, which has no tables of a study."""

    name: str | None
    configs: dict[str, Config]


def is_study(values: Any) -> bool:
    """Whether plain values are those of a study."""
    return isinstance(values, dict) and "study" in values


def expand(values: dict[str, Any], read_base: Callable[[Any], Any], parse: Callable[[Any, str], Config]) -> Study:
    """Make a study's experiments.

    Args:
        values: the study's file as plain values.
        read_base: the plain values of a base: those at its path, or its own with what they include.
        parse: validates the plain values of one experiment; the second argument names it in errors.

    Raises:
        ConfigError: with one line for each mistake, each said once.
    """
    try:
        file = StudyFile.model_validate(values)
    except ValidationError as error:
        raise ConfigError(describe(error, StudyFile)) from None
    base = read_base(file.base)
    if is_study(base):
        raise ConfigError(["base: names a study, not an experiment"])
    patches = file.patches()
    if len(patches) > MAX_EXPERIMENTS:
        raise ConfigError([f"grid: has {len(patches)} experiments, at most {MAX_EXPERIMENTS} are accepted"])
    configs: dict[str, Config] = {}
    mistakes: dict[str, list[str]] = {}
    for name, changes in patches.items():
        found = base
        for change in changes:
            found = merged(found, change)
        found = merged(found, {"experiment": {"name": name}})
        try:
            configs[name] = parse(found, name)
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
