"""From autoencoders to features that differ between tones, their contexts and their directions."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save

from emoprobe.analysis.contrasts import contrasts_of
from emoprobe.analysis.features.autoencoder import seed_cosines
from emoprobe.analysis.features.autoencoder_sources import AutoencoderSource, sources
from emoprobe.analysis.features.baselines import Coder, TokenMoments, principal_components
from emoprobe.analysis.features.contexts import top_contexts
from emoprobe.analysis.features.feature_tests import AUTOENCODER, feature_differences
from emoprobe.analysis.features.tokens import TokenActivations, load_tokens
from emoprobe.config.experiment import Config
from emoprobe.config.science.analysis import references_of
from emoprobe.models.source import ModelCard
from emoprobe.models.tokens import token_texts
from emoprobe.results import atomic
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.tables import frame, write_table


def analyze_features(config: Config, layout: Layout) -> None:
    """Write the directions, then the tables `feature_contexts` and `features`.

    Raises:
        ActivationError: there are no tokens, or a folder is damaged.
        AutoencoderError: an autoencoder cannot be used.
    """
    tokens = load_tokens(config, layout)
    autoencoders = sources(config, layout, tokens)
    moments = TokenMoments.of(tokens.half("fit"))
    coders: dict[str, Coder] = {
        AUTOENCODER: autoencoders[0].autoencoder,
        autoencoders[-1].name: autoencoders[-1].autoencoder,
        "pca": principal_components(moments),
    }
    references = references_of(list(config.variants), config.analysis.references)
    tones = [one.variant for one in contrasts_of(list(config.variants), references) if one.primary]
    rows = feature_differences(tokens, coders, tones, references[-1], config.features.chosen)
    features = sorted({row["feature"] for row in rows if row["method"] == AUTOENCODER})
    _write_directions(layout, tokens, autoencoders[0], features, moments.median_norm)
    _write_contexts(config, layout, tokens, autoencoders[0], features)
    cosines = seed_cosines(autoencoders[0].autoencoder, [source.autoencoder for source in autoencoders[1:-1]])
    if cosines is not None:
        for row in rows:
            if row["method"] == AUTOENCODER:
                row["seed_cosine"] = float(cosines[row["feature"]])
    write_table(layout, "features", frame(TABLES["features"], rows))


def _write_directions(
    layout: Layout, tokens: TokenActivations, source: AutoencoderSource, features: list[int], norm: float
) -> None:
    """`feature-N`: the unit vector that a feature writes along, (d,); `feature-N.norm`: the median length there.

    The metadata names the layer: at another one the direction means nothing.
    """
    tensors: dict[str, torch.Tensor] = {}
    for feature in features:
        tensors[f"feature-{feature}"] = source.autoencoder.directions[feature].contiguous()
        tensors[f"feature-{feature}.norm"] = torch.tensor(norm)
    metadata = {"layer": str(tokens.layer), "autoencoder": source.name, "features": json.dumps(features)}
    atomic.write_bytes(layout.feature_directions(), save(tensors, metadata=metadata))


def _write_contexts(
    config: Config, layout: Layout, tokens: TokenActivations, source: AutoencoderSource, features: list[int]
) -> None:
    directory = Path(ModelCard.read(layout.model).path)
    # A model that only others' servers hold has no tokenizer here; then its tokens go by their numbers.
    texts = partial(token_texts, directory=directory) if directory.is_dir() else lambda ids: [f"<{one}>" for one in ids]
    rows = top_contexts(tokens, source.autoencoder, features, config.features.contexts, texts)
    write_table(layout, "feature_contexts", frame(TABLES["feature_contexts"], rows))
