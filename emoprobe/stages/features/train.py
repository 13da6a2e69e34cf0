"""From tokens to an autoencoder."""

from __future__ import annotations

import hashlib
import json
import sys

from emoprobe.analysis.features.formats import write_autoencoder
from emoprobe.analysis.features.tokens import digest_of, load_tokens
from emoprobe.analysis.features.training import train
from emoprobe.config.experiment import Config
from emoprobe.results.layout import Layout


def train_autoencoder(config: Config, layout: Layout, name: str) -> None:
    """Train one autoencoder on the fitting half of the trajectories and write it, with a line of progress.

    An interrupted training goes on from its checkpoint, which is removed in the end.

    Args:
        config: the experiment.
        layout: its folder.
        name: `seed-1` and so on.

    Raises:
        ActivationError: there are no tokens, or a folder is damaged.
    """
    tokens = load_tokens(config, layout)
    shards, settings = tokens.half("fit"), config.features.autoencoder
    seed = config.experiment.seed + int(name.rpartition("-")[2]) - 1
    made_from = [settings.content(), seed, tokens.layer, digest_of(shards)]
    key = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    checkpoint = layout.checkpoint(name)
    autoencoder = train(
        shards, settings, seed, checkpoint, key, lambda done: print(f"{name}: {done}", file=sys.stderr, flush=True)
    )
    about = {
        "seed": seed,
        "training_tokens": sum(shard.length for shard in shards),
        "metadata": {
            "model_name": config.model.source,
            "hook_name": f"blocks.{tokens.layer}.hook_resid_post",
            "hook_layer": tokens.layer,
        },
    }
    write_autoencoder(layout.autoencoder(name), autoencoder, about)
    checkpoint.unlink(missing_ok=True)
