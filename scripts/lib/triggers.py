"""What makes which file again: short digests that the rules carry as `params`.

A digest covers exactly what a file depends on and nothing else, so that Snakemake plans what a change made stale
and only that. It names its part of the config, so that a dry run says which part changed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from scripts.lib import models, samples, variants
from scripts.lib.config import Config


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
        values = config.resolved()
        resolved = {key: value for key, value in values.items() if key != "workers"}
        resolved["generation"] = _without(values["generation"], "timeout")
        resolved["capture"] = _without(values["capture"], "batch_tokens", "memory_gib")
        return cls(
            model=digest([models.identity(config.model), config.model.dtype]),
            data=digest(samples.identity(config.dataset, config.experiment.seed)),
            prompt=digest(values["prompt"]),
            generation=digest(resolved["generation"]),
            variants={name: digest(variants.identity(variant)) for name, variant in config.variants.items()},
            capture=digest(resolved["capture"]),
            probes=digest(values["probes"]),
            labels=digest([list(config.variants), [variant.valence for variant in config.variants.values()]]),
            experiment=digest(resolved),
        )


def _without(section: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}
