"""One experiment as the pool sees it: its config, files, data and model."""

from __future__ import annotations

import asyncio
import threading
from functools import cached_property
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.conversations.rendering import Renderer
from emoprobe.models.source import ModelCard, tokenizer_directory
from emoprobe.models.tokens import Encode, encoder
from emoprobe.results.layout import Layout
from emoprobe.steering.grid import SteeringGrid, drawn_grid
from server.pool.allowance import Allowance, pair_allowance, steering_allowance


class ExperimentJobs:
    """What the jobs of one experiment of a run share.

    Args:
        config: its resolved config.
        results: the folder in which the experiment's folder lies.
        directory: where the workflow was started; relative paths of data start there.
    """

    def __init__(self, config: Config, results: Path, directory: Path) -> None:
        self.config, self.results = config, results
        self.layout = Layout.of(config.experiment.name, results)
        self.allowance = pair_allowance(config, self.layout)
        self.directory = directory
        self._opening, self._loading = threading.Lock(), threading.Lock()

    @cached_property
    def card(self) -> ModelCard:
        """The model, from `model.json`, which the jobs of this experiment wait for."""
        return ModelCard.read(self.layout.model)

    @cached_property
    def _steering(self) -> SteeringGrid:
        return drawn_grid(self.config, self.layout, self.directory)

    @property
    def steering(self) -> SteeringGrid:
        """The steered trajectories; the data set is opened for it, once.

        Raises:
            DataError: the questions cannot be drawn.
        """
        with self._opening:
            return self._steering

    @cached_property
    def steering_allowance(self) -> Allowance:
        """How many steered trajectories may go without an answer."""
        return steering_allowance(self.config, self.layout, self.steering.trajectories)

    @cached_property
    def _loaded_renderer(self) -> Renderer:
        return Renderer.load(tokenizer_directory(self.card), self.card.tokenizer)

    async def renderer(self) -> Renderer:
        """What turns messages into the model's tokens; loaded when it is first asked for.

        Raises:
            PromptError, ModelError: the model's tokenizer cannot be loaded.
        """

        def load() -> Renderer:
            with self._loading:
                return self._loaded_renderer

        return self._loaded_renderer if "_loaded_renderer" in self.__dict__ else await asyncio.to_thread(load)

    @cached_property
    def encode(self) -> Encode:
        """The model's tokenizer.

        Raises:
            ModelError: it cannot be loaded.
        """
        return encoder(tokenizer_directory(self.card))

    @property
    def model_name(self) -> str:
        """What the servers call the model."""
        return self.config.workers.model_name or self.config.model.source

    def pair_index(self, variant: str, sample_index: int, draw: int) -> int:
        """The place of a pair among all pairs of the experiment, sample by sample: what round robin counts."""
        names = list(self.config.variants)
        return sample_index * len(names) + names.index(variant) + draw - 1
