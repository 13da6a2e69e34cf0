"""From autoencoders to how good they are."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from emoprobe.analysis.features.autoencoder import shared
from emoprobe.analysis.features.autoencoder_sources import AutoencoderSource, sources
from emoprobe.analysis.features.quality import Losses, SplicedModel, losses, quality
from emoprobe.analysis.features.tokens import TokenActivations, load_tokens
from emoprobe.config.experiment import Config
from emoprobe.models.resolved import with_values
from emoprobe.models.source import ModelCard
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.tables import frame, write_table


def measure_autoencoders(config: Config, layout: Layout) -> None:
    """Write the table `autoencoders`: every one's quality on the testing half.

    Cross-entropy takes the model; where only others' servers hold it, it is null.

    Raises:
        ActivationError: there are no tokens, or a folder is damaged.
        AutoencoderError: an autoencoder cannot be used.
    """
    tokens = load_tokens(config, layout)
    autoencoders = sources(config, layout, tokens)
    scored = _losses(config, layout, tokens, autoencoders)
    rows = []
    for source in autoencoders:
        rows.append(_row(source, autoencoders, tokens, scored))
        print(f"{source.name}: {rows[-1]}", file=sys.stderr, flush=True)
    write_table(layout, "autoencoders", frame(TABLES["autoencoders"], rows))


def _losses(
    config: Config, layout: Layout, tokens: TokenActivations, autoencoders: list[AutoencoderSource]
) -> Losses | None:
    card = ModelCard.read(layout.model)
    directory, dtype = Path(card.path), with_values(config, card.resolved or {}).model.dtype
    if not directory.is_dir():
        return None
    held_out = tokens.half("test")
    # Of all questions and variants, not of the first variant alone.
    order = np.random.default_rng(config.experiment.seed).permutation(len(held_out))[: config.features.evaluated]
    model = SplicedModel(directory, dtype, tokens.layer)
    coders = {source.name: source.autoencoder.reconstruct for source in autoencoders}
    return losses(model, [held_out[row] for row in order], coders)


def _row(
    source: AutoencoderSource, autoencoders: list[AutoencoderSource], tokens: TokenActivations, scored: Losses | None
) -> dict[str, Any]:
    measured = quality(source.autoencoder, tokens.half("test"))
    others = {
        other.name: other.autoencoder for other in autoencoders if other.kind == source.kind and other is not source
    }
    row: dict[str, Any] = {
        "name": source.name,
        "kind": source.kind,
        "toy": source.toy,
        "architecture": source.autoencoder.architecture,
        "layer": tokens.layer,
        "d": source.autoencoder.d,
        "width": source.autoencoder.width,
        "training_tokens": source.training_tokens,
        "tokens": measured.tokens,
        "fvu": measured.fvu,
        "l0": measured.l0,
        "dead": measured.dead,
        "scored_tokens": 0 if scored is None else scored.tokens,
        "shared": shared(source.autoencoder, others),
    }
    if scored is not None:
        row |= {
            "ce": scored.plain,
            "ce_spliced": scored.spliced[source.name],
            "ce_zero": scored.zero,
            "recovered": scored.recovered(source.name),
        }
    return row
