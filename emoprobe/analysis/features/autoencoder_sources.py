"""The autoencoders of an experiment: those that were trained for it, or the pretrained one, and a random one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from emoprobe.analysis.features.autoencoder import SparseAutoencoder, random_autoencoder
from emoprobe.analysis.features.formats import read_autoencoder
from emoprobe.analysis.features.tokens import TokenActivations, TokenShard
from emoprobe.analysis.features.training import Scale
from emoprobe.config.experiment import Config
from emoprobe.models.autoencoders import CONFIG, AutoencoderError, weights_folder
from emoprobe.results.layout import Layout
from emoprobe.results.record import read_json

RANDOM, PRETRAINED = "random", "pretrained"
TOY_TOKENS = 10_000_000  # published ones are trained on hundreds of millions, or billions
COUNTED = 200  # trajectories that tell how many features of a pretrained autoencoder are active


@dataclass(frozen=True)
class AutoencoderSource:
    """An autoencoder of an experiment; `training_tokens` is None where it is unknown, 0 where nothing was trained."""

    name: str
    kind: Literal["trained", "pretrained", "random"]
    autoencoder: SparseAutoencoder
    training_tokens: int | None

    @property
    def toy(self) -> bool | None:
        """Whether it was trained on few tokens; None where that is unknown, or nothing was trained."""
        return self.training_tokens < TOY_TOKENS if self.training_tokens else None


def sources(config: Config, layout: Layout, tokens: TokenActivations) -> list[AutoencoderSource]:
    """Every autoencoder: the one that names the features first, the random one last.

    Raises:
        AutoencoderError: one cannot be read, or reads another number of values than the model has.
    """
    settings = config.features.autoencoder
    if settings.source is None:
        loaded = [_trained(layout, name) for name in config.features.autoencoders]
        k = settings.k
    else:
        folder = weights_folder(settings)
        loaded = [AutoencoderSource(PRETRAINED, "pretrained", read_autoencoder(folder), None)]
        k = loaded[0].autoencoder.k or _active(loaded[0].autoencoder, tokens.half("fit"))
    for source in loaded:
        if source.autoencoder.d != tokens.d:
            raise AutoencoderError(
                f"features.autoencoder.source: it reads {source.autoencoder.d} values, and the model has {tokens.d}: "
                "it is another model's"
            )
    first = loaded[0].autoencoder
    mean = Scale.of(tokens.half("fit")).mean
    baseline = random_autoencoder(first.width, min(k, first.width - 1), mean, config.experiment.seed)
    return [*loaded, AutoencoderSource(RANDOM, "random", baseline, 0)]


def _trained(layout: Layout, name: str) -> AutoencoderSource:
    folder = layout.autoencoder(name)
    return AutoencoderSource(
        name, "trained", read_autoencoder(folder), int(read_json(folder / CONFIG)["training_tokens"])
    )


@torch.no_grad()
def _active(autoencoder: SparseAutoencoder, shards: Sequence[TokenShard]) -> int:
    """Return how many features are active on a token, rounded, at least 1."""
    counts = torch.cat([(autoencoder.encode(shard.tokens()) > 0).sum(1) for shard in shards[:COUNTED]])
    return max(1, round(float(counts.float().mean())))
