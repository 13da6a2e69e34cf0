"""Models that the pool serves, an experiment's or a judge's, and the configuration of their servers."""

from __future__ import annotations

import asyncio
import threading
from functools import cached_property
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.config.judge_server import about_judge, judge_server
from emoprobe.config.science.judge import JudgeGrader
from emoprobe.conversations import variants
from emoprobe.conversations.api import most_tokens
from emoprobe.conversations.judging import judge_request
from emoprobe.conversations.lengths import needed_length, padded_length
from emoprobe.conversations.rendering import PromptError, Renderer
from emoprobe.conversations.samples import DataError, draw, located
from emoprobe.models.directory import ModelError
from emoprobe.models.placement import PlacementError
from emoprobe.models.resolved import LEAST_LENGTH, ResolveError, pinned, with_placement, with_values
from emoprobe.models.settings import context_length, read_settings, why_not_batch_invariant
from emoprobe.models.source import ModelCard, tokenizer_directory
from emoprobe.models.tokens import Encode, encoder
from emoprobe.results.layout import Layout


class ServedModel:
    """The model of an experiment and its servers.

    Args:
        config: the experiment's resolved config.
        results: the folder in which the experiment's folder lies.
        directory: where the workflow was started; relative paths of data start there.
    """

    def __init__(self, config: Config, results: Path, directory: Path) -> None:
        self.config, self.results, self.directory = config, results, directory
        self.layout = Layout.of(config.experiment.name, results)
        self._loading, self._deciding = threading.Lock(), threading.Lock()

    @cached_property
    def card(self) -> ModelCard:
        """The model, from `model.json`, which the jobs of this experiment wait for."""
        return ModelCard.read(self.layout.model)

    @cached_property
    def pinned(self) -> Config:
        """The config with a value for each `auto` that can change a result, see `emoprobe.models.resolved`.

        Raises:
            ResolveError: the servers' hardware cannot compute it.
            PlacementError: the model does not fit on the GPUs.
        """
        return pinned(self.config, self.card, Path(self.card.path))

    @cached_property
    def _started(self) -> Config:
        config = self._with_context()
        if why_not_batch_invariant(read_settings(Path(self.card.path))) is not None:
            return with_values(config, {"engine.batch_invariant": False})
        return config

    def _with_context(self) -> Config:
        """The config with the context that vLLM is started with."""
        length = self.pinned.generation.engine.max_model_len
        if length == "auto" and self.pinned.workers.endpoints_of("vllm"):
            return self.pinned
        if length == "auto":
            length = self._needed_length()
        config = with_values(self.pinned, {"engine.max_model_len": length})
        return with_placement(config, Path(self.card.path))

    def _needed_length(self) -> int:
        context = context_length(read_settings(Path(self.card.path)))
        dataset = located(self.config.dataset, self.directory)
        try:
            with self._loading:
                renderer = self._loaded_renderer
            return needed_length(self.config, renderer, draw(dataset, self.config.experiment.seed), context)
        except (DataError, variants.VariantError, PromptError, ModelError):
            # The jobs that need them report the error.
            return min(max(LEAST_LENGTH, 2 * self.config.generation.max_tokens), context or LEAST_LENGTH)

    @property
    def started(self) -> Config:
        """The config that servers are started with, without `auto`. Slow at first, see `decide`."""
        with self._deciding:
            return self._started

    async def decide(self) -> None:
        """Compute `started` in a thread: prompts are rendered, and the size of the weights is looked up.

        Raises:
            ResolveError, PlacementError: see `pinned`.
        """
        if "_started" not in self.__dict__:
            await asyncio.to_thread(lambda: self.started)

    @cached_property
    def _loaded_renderer(self) -> Renderer:
        return Renderer.load(tokenizer_directory(self.card), self.card.tokenizer)

    async def renderer(self) -> Renderer:
        """Return the renderer of the model; loaded at the first call.

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
        """Name of the model at the servers."""
        return self.config.workers.model_name or self.config.model.source


class JudgeModel(ServedModel):
    """The model of a judge that the run serves, by vLLM.

    Args:
        experiment: whose answers it judges.
        settings: the judge.
    """

    def __init__(self, experiment: ServedModel, settings: JudgeGrader) -> None:
        super().__init__(judge_server(experiment.config, settings), experiment.results, experiment.directory)
        self._settings, self._judged = settings, experiment.config

    @cached_property
    def card(self) -> ModelCard:
        """The model, from its `model.json`, which the judgements wait for."""
        return ModelCard.read(self.layout.judge_model(self._settings.outcome))

    async def decide(self) -> None:
        """As for any model; errors name the judge's key."""
        try:
            await super().decide()
        except (ResolveError, PlacementError) as error:
            raise type(error)(about_judge(self._settings, str(error))) from None

    def _needed_length(self) -> int:
        """Room for the longest question, a token for each byte, and for answers with twice as many tokens."""
        dataset = located(self._judged.dataset, self.directory)
        try:
            questions = [sample.question for sample in draw(dataset, self._judged.experiment.seed)]
        except DataError:  # the jobs that need the data report the error
            questions = [""]
        sides = [[""]] * self._settings.sides
        prompt, reply = most_tokens(judge_request(self._settings, 0, max(questions, key=_bytes), *sides))
        answers = len(sides) * self._judged.conversation.judged_answers * self._judged.generation.max_tokens
        context = context_length(read_settings(Path(self.card.path)))
        return padded_length(prompt + 2 * answers + reply, context)


def _bytes(text: str) -> int:
    return len(text.encode())
