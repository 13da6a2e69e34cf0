"""What makes which file again: short digests that the rules carry as `params`.

A digest covers exactly what a file depends on and nothing else, so that Snakemake plans what a change made stale
and only that. It names its part of the config, so that a dry run says which part changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from emoprobe.config.experiment import Config
from emoprobe.models import source as models
from emoprobe.tasks import samples, variants


def digest(value: Any) -> str:
    """Twelve hexadecimal digits that stand for a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Triggers:
    """The digests of one configuration, by the part of it that they stand for."""

    model: str
    data: str
    prompt: str
    generation: str
    variants: dict[str, str]
    capture: str
    probes: str
    labels: str
    experiment: str

    @classmethod
    def of(cls, config: Config) -> Triggers:
        """Compute the digests; reads local data, model metadata and transforms, downloads nothing."""
        described = config.resolved()
        del described["workers"]
        return cls(
            model=digest([models.identity(config.model), config.model.dtype]),
            data=digest(samples.identity(config.dataset, config.experiment.seed)),
            prompt=digest(config.prompt.content()),
            generation=digest(config.generation.content()),
            variants={name: digest(variants.identity(config, name)) for name in config.variants},
            capture=digest(config.capture.content()),
            probes=digest(config.probes.content()),
            labels=digest([list(config.variants), [variant.valence for variant in config.variants.values()]]),
            experiment=digest(described),
        )
