"""The files of what an experiment steers, and what makes which of them again."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.conversations import samples
from emoprobe.conversations.sources import hub, kind_of
from emoprobe.conversations.sources.data_source import paths_sha256
from emoprobe.models.settings import known_size
from emoprobe.results.activation_folder import METADATA
from emoprobe.results.layout import SCORES, TRAJECTORY_FILES, Layout
from emoprobe.steering.grid import SteeringGrid, captured_questions, question_key
from emoprobe.workflow.remembered import remembered, version
from emoprobe.workflow.triggers import digest


@dataclass(frozen=True)
class SteeredTargets:
    """The files of one experiment's steering."""

    grid: SteeringGrid
    layout: Layout

    @classmethod
    def of(cls, config: Config, layout: Layout, memory: Path | None = None) -> SteeredTargets:
        """Return the steering targets of an experiment.

        Args:
            config: the experiment.
            layout: its files.
            memory: folder in which the groups of questions are kept as long as the data are the same.

        Raises:
            DataError: the data cannot be read.
        """
        return cls(steering_grid(config.model_dump_json(), memory), layout)

    def directions(self) -> list[Path]:
        """The files of all directions."""
        return [self.layout.direction(name) for name in self.grid.directions]

    def fitted_on(self, direction: str) -> list[str]:
        """The activations that a direction is fitted on, by their metadata: the tensors may be in object storage."""
        variants = self.grid.fitted_variants(direction)
        folders = (self.layout.activations(variant, sample) for variant in variants for sample in self.grid.fitted)
        return [f"{folder}/{METADATA}" for folder in folders]

    def trajectories(self, names: Iterable[str] = (*TRAJECTORY_FILES, SCORES)) -> list[str]:
        """Files of every steered trajectory."""
        root, names = f"{self.layout.root}/steering", list(names)
        return [
            f"{root}/{steered.condition}/{steered.variant}/{steered.name}/{name}"
            for steered in self.grid.trajectories
            for name in names
        ]

    @cached_property
    def made_from(self) -> dict[str, str]:
        """Direction → a digest of what it depends on, besides the activations themselves."""
        config, grid = self.grid.config, self.grid
        shared = digest([config.steering.fit.content(), grid.fitted])
        found = {}
        for name, direction in grid.directions.items():
            own: list[Any] = [direction.family, grid.fitted_variants(name)]
            if direction.family == "probe":
                own.append(config.probes.shrinkage)
            if direction.family in ("random", "shuffled"):
                own.append(config.experiment.seed)
            if name in config.steering.files:
                file = config.steering.files[name]
                own += [file.key, file.row, paths_sha256([Path(file.path).expanduser()])]
            found[name] = f"fit {shared} direction {digest(own)}"
        return found


@cache
def steering_grid(config_json: str, memory: Path | None) -> SteeringGrid:
    """Return the grid of a config, given as JSON."""
    config = Config.model_validate_json(config_json)
    groups, questions = asked_questions(config, memory)
    return SteeringGrid(config, groups, known_size(config.model)[0], questions)


def asked_questions(config: Config, memory: Path | None = None) -> tuple[tuple[str | None, ...], tuple[str, ...]]:
    """The group and the key of each captured question, which say what may not be divided between the halves.

    Data of the hub are not opened, as that may mean a download: without `dataset.group` they have no groups, and copies
    of a question are not known.

    Raises:
        DataError: the data cannot be read.
    """
    dataset, count = config.dataset, captured_questions(config)
    if kind_of(dataset.source) is hub.KIND:
        return (None,) * count, ()

    def ask() -> list[str]:
        drawer = samples.Drawer(dataset, config.experiment.seed)
        drawn = (drawer.sample(place) for place in range(count))
        return [json.dumps([sample.group, question_key(sample.question)]) for sample in drawn]

    about = ["groups and questions", samples.identity(dataset, config.experiment.seed), count, version("reasoning-gym")]
    known = [json.loads(line) for line in remembered(memory, about, ask)]
    return tuple(group for group, _ in known), tuple(question for _, question in known)
