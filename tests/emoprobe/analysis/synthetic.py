"""Synthetic experiments with a known truth: a trajectory table and activations, with or without folders."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from emoprobe.analysis.probes.activation_source import ActivationSource
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.results.tables import completed

# (layer, position, noise) → what is added to it, (n, d)
Signal = Callable[[int, str, np.ndarray], np.ndarray]

VALENCES = {
    "control": None,
    "anger": "negative",
    "fear": "negative",
    "joy": "positive",
    "hope": "positive",
    "calm": "neutral",
    "rest": "neutral",
    "impatience": "negative",
    "disappointment": "negative",
    "encouragement": "positive",
    "collaborative": "positive",
    "matter_of_fact": "neutral",
}
# Four of each valence, beside control and a filler.
BALANCED = {
    "control": None,
    "filler": None,
    **dict.fromkeys(("anger", "fear", "impatience", "disappointment"), "negative"),
    **dict.fromkeys(("joy", "hope", "encouragement", "collaborative"), "positive"),
}

# Six of each valence, three of them of high arousal and three of low.
AROUSED = {
    "control": None,
    "filler": None,
    **dict.fromkeys(("anger", "fear", "impatience", "sadness", "boredom", "gloom"), "negative"),
    **dict.fromkeys(("joy", "pride", "excitement", "calm", "gratitude", "warmth"), "positive"),
}
AROUSAL = {
    **dict.fromkeys(("anger", "fear", "impatience", "joy", "pride", "excitement"), "high"),
    **dict.fromkeys(("sadness", "boredom", "gloom", "calm", "gratitude", "warmth"), "low"),
}


def config(
    variants: int | dict[str, str | None] = 7, texts: dict[str, list[str]] | None = None, **probes: object
) -> Config:
    """A config with that many variants, or these; each has some texts, or two. Those of `AROUSED` have an arousal."""
    arousal = AROUSAL if variants == AROUSED else {}
    chosen = dict(list(VALENCES.items())[:variants]) if isinstance(variants, int) else variants
    return parse_config(
        {
            "variants": {
                name: {}
                if name == "control"
                else {
                    "texts": (texts or {}).get(name, [f"{name} a", f"{name} b"]),
                    "valence": valence,
                    "arousal": arousal.get(name),
                }
                for name, valence in chosen.items()
            },
            "probes": {"permutations": 19, **probes},
        }
    )


def table(settings: Config, samples: int, seed: int) -> pd.DataFrame:
    """Trajectories of every variant on every sample; correctness varies by sample and a little by variant."""
    generator = np.random.default_rng(seed)
    ease = generator.normal(size=samples)
    rows = [
        {
            "variant": variant,
            "sample_id": f"s_{sample:04d}",
            "valence": spec.valence,
            "paraphrase": sample % len(spec.texts) if spec.texts else None,
            "correct": bool(ease[sample] + generator.normal() > 0),
        }
        for variant, spec in settings.variants.items()
        for sample in range(samples)
    ]
    frame = pd.DataFrame(rows)
    typed = frame.astype(
        {"variant": "string", "sample_id": "string", "valence": "string", "paraphrase": "Int64", "correct": "boolean"}
    )
    return completed(typed.assign(draw=1), "trajectories")


def source(
    frame: pd.DataFrame, layers: int, d: int, seed: int, signal: Signal | None = None,
    positions: tuple[str, ...] = ("last_prompt", "response_mean"), hook_points: tuple[str, ...] = ("input_layernorm.output",),
) -> ActivationSource:  # fmt: skip
    """Activations of correlated noise; `signal(layer, position, noise)` adds what is planted, (n, d)."""
    n = len(frame)

    def load(begin: int, end: int, hook_point: str) -> dict[str, np.ndarray]:
        found = {}
        for number, position in enumerate(positions):
            block = np.empty((n, end - begin, d), dtype=np.float16)
            for layer in range(begin, end):
                generator = np.random.default_rng([seed, layer, number, hook_points.index(hook_point)])
                scale = np.geomspace(3.0, 0.1, d)
                noise = generator.normal(size=(n, d)) * scale + 1.0
                block[:, layer - begin] = noise if signal is None else noise + signal(layer, position, noise)
            found[position] = block
        return found

    empty = {position: np.zeros(n, dtype=bool) for position in positions}
    return ActivationSource(np.arange(n), list(range(layers)), list(hook_points), list(positions), d, load, empty)
