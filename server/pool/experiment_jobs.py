"""One experiment as the pool sees it: its config, files, data and model."""

from __future__ import annotations

import asyncio
import threading
from functools import cached_property
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.conversations.lengths import LEAST, needed_length
from emoprobe.conversations.rendering import PromptError, Renderer
from emoprobe.conversations.samples import DataError, Drawer, located
from emoprobe.conversations.variants import VariantError
from emoprobe.models.depth import known_size, layer_count, read_settings
from emoprobe.models.requirements import context_length
from emoprobe.models.resolved import pinned, with_placement, with_values
from emoprobe.models.source import ModelCard, ModelError, tokenizer_directory
from emoprobe.models.tokens import Encode, encoder
from emoprobe.results.layout import Layout
from emoprobe.results.sample import Sample
from emoprobe.steering.grid import SteeringGrid, captured_questions
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
        self._drawer: Drawer | None = None
        self._opening, self._loading, self._deciding = threading.Lock(), threading.Lock(), threading.Lock()

    def sample(self, index: int) -> Sample:
        """One sample, drawn from the data set, which stays open for the others.

        Raises:
            DataError: it cannot be drawn.
        """
        with self._opening:
            if self._drawer is None:
                dataset = located(self.config.dataset, self.directory)  # the pool works elsewhere than the workflow
                self._drawer = Drawer(dataset, self.config.experiment.seed)
        return self._drawer.sample(index)

    @cached_property
    def card(self) -> ModelCard:
        """The model, from `model.json`, which the jobs of this experiment wait for."""
        return ModelCard.read(self.layout.model)

    @cached_property
    def pinned(self) -> Config:
        """The config with what each `auto` that can change a result became, see `emoprobe.models.resolved`.

        Raises:
            ResolveError: the servers' hardware cannot compute it.
            PlacementError: the model does not fit on the GPUs.
        """
        return pinned(self.config, self.card, Path(self.card.path))

    @cached_property
    def _started(self) -> Config:
        length = self.pinned.generation.engine.max_model_len
        if length == "auto" and self.pinned.workers.endpoints_of("vllm"):
            return self.pinned
        if length == "auto":
            context = context_length(read_settings(Path(self.card.path)))
            try:
                with self._loading:
                    renderer = self._loaded_renderer
                length = needed_length(self.config, renderer, self.sample, context)
            except (DataError, VariantError, PromptError, ModelError):  # the jobs that need them say it
                length = min(max(LEAST, 2 * self.config.generation.max_tokens), context or LEAST)
        config = with_values(self.pinned, {"engine.max_model_len": length})
        return with_placement(config, Path(self.card.path))

    @property
    def started(self) -> Config:
        """The config that servers are started with: no `auto` is left. Slow at first, see `decide`."""
        with self._deciding:
            return self._started

    async def decide(self) -> None:
        """Work out `started` beside the event loop: prompts are rendered, and the size of the weights is looked up.

        Raises:
            ResolveError, PlacementError: see `pinned`.
        """
        if "_started" not in self.__dict__:
            await asyncio.to_thread(lambda: self.started)

    @cached_property
    def steering(self) -> SteeringGrid:
        """What is steered; the data are opened for it.

        Raises:
            DataError: they cannot be.
        """
        groups = tuple(self.sample(place).group for place in range(captured_questions(self.config)))
        depth = layer_count(Path(self.card.path)) or known_size(self.config.model)[0]
        return SteeringGrid(self.config, groups, depth)

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
