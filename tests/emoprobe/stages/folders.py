"""Folders in the trajectory contract with a known truth, written with the library's records."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file

from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.results import atomic
from emoprobe.results.activation_folder import METADATA, TENSORS, ActivationMetadata, TokenPosition, TokenSpans
from emoprobe.results.layout import SCORES, Layout
from emoprobe.results.trajectory import AgentState, AnswerRecord, Sample, SampleData, Scores, Trajectory, Usage

LAYERS, D, TEXTS = 2, 8, 24
NEGATIVE, POSITIVE = ("anger", "fear", "sorrow", "shame"), ("joy", "hope", "pride", "warmth")
VALENCES = {"control": None, "filler": "neutral"} | dict.fromkeys(NEGATIVE, "negative")
VALENCES |= dict.fromkeys(POSITIVE, "positive")
METADATA_OF_RUN = {
    "experiment_name": "planted",
    "timestamp": "2026-01-01T00:00:00+00:00",
    "model": {"id": "tiny", "revision": None, "sha256": "0", "dtype": "float32"},
    "random_seed": 42,
    "sampling": {"temperature": 0.0},
    "package_versions": {"torch": "2"},
    "git_commit": "0" * 40,
}


@dataclass(frozen=True)
class Plant:
    """What a folder holds.

    Attributes:
        accuracy: of each variant; those that are not named have 0.5.
        valence: how far activations of positive and negative variants lie apart along one direction.
        correctness: the same for right and wrong answers.
        captured: how many questions have activations.
    """

    questions: int = 48
    accuracy: dict[str, float] = field(default_factory=dict)
    valence: float = 0.0
    correctness: float = 0.0
    captured: int = 24
    seed: int = 0


def config(questions: int) -> Config:
    """Control, a filler and four tones a valence, eight texts each."""
    return parse_config(
        {
            "experiment": {"name": "planted"},
            "dataset": {"samples": questions, "id_prefix": "q"},
            "variants": {
                name: {}
                if name == "control"
                else {"texts": [f"{name} in words {number}." for number in range(TEXTS)], "valence": valence}
                for name, valence in VALENCES.items()
            },
            "probes": {"permutations": 99},
        }
    )


def write(root: Path, plant: Plant) -> Layout:
    """Write a folder as the workflow leaves it, but for what is derived from trajectories and activations."""
    layout, settings, generator = Layout(root), config(plant.questions), np.random.default_rng(plant.seed)
    atomic.write_text(layout.resolved_yaml, yaml.safe_dump(settings.resolved(), sort_keys=False))
    atomic.write_json(layout.metadata, METADATA_OF_RUN)
    directions = generator.normal(size=(2, D))
    ease = generator.normal(size=plant.questions)
    signs = {"negative": -1.0, "positive": 1.0}
    for number in range(plant.questions):
        name, gold = f"q_{number + 1:04d}", str(number + 3)
        question = f"What is {number} + 3?"
        Sample(sample_id=name, index=number, question=question, answer=gold, source={}).write(layout.sample(name))
        for variant, valence in VALENCES.items():
            chance = np.log(plant.accuracy.get(variant, 0.5) / (1 - plant.accuracy.get(variant, 0.5)))
            right = bool(generator.random() < 1 / (1 + np.exp(-chance - 0.5 * ease[number])))
            trajectory(question, f"Answer: {gold if right else number + 4}", gold, variant, name, right).write(
                layout.pair(variant, name)
            )
            if number < plant.captured:
                shift = plant.valence * signs.get(str(valence), 0.0) * directions[0]
                shift = shift + plant.correctness * (right - 0.5) * directions[1]
                values = generator.normal(size=(LAYERS, 2, D)) + shift
                activations(layout.activations(variant, name), values)
    return layout


def trajectory(question: str, answer: str, gold: str, variant: str, sample: str, right: bool) -> Trajectory:
    """A finished answer with all three files."""
    return Trajectory(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        AgentState(
            variant=variant,
            sample_id=sample,
            finish_reason="stop",
            request={"max_tokens": 64},
            usage=Usage(prompt_tokens=9, completion_tokens=4, total_tokens=13),
        ),
        AnswerRecord.model_validate(
            {
                "sample_data": SampleData(question=question, answer=gold, sample_id=sample),
                "sample_id": sample,
                "variant": variant,
                "metrics": {"correctness": float(right)},
            }
        ),
    )


def activations(path: Path, values: np.ndarray, **changes: Any) -> None:
    """An activation folder of two positions; values are (layers, positions, d)."""
    path.mkdir(parents=True)
    save_file({"layer.output": values.astype(np.float32)}, path / TENSORS)
    metadata = ActivationMetadata(
        dtype="float32",
        layers=list(range(len(values))),
        hook_points=["layer.output"],
        positions=[TokenPosition(name="last_prompt", span=(0, 1)), TokenPosition(name="response_mean", span=(1, 2))],
        token_ids=[1, 2],
        spans=TokenSpans(response=(1, 2)),
        shapes={"layer.output": list(values.shape)},
        sha256="",
        bytes=0,
    )
    atomic.write_text(path / METADATA, metadata.model_copy(update=changes).model_dump_json())


def steer(
    layout: Layout, effect: float, questions: int = 10, random: int = 39, shuffled: int = 20, texts: int = TEXTS
) -> None:
    """Add trajectories under edits to a folder: anger has an effect on log p(gold) at dose 0.2, controls have none.

    Its direction, and those of shuffled labels, were fitted on the first `texts` questions, each of which has a text.
    """
    generator = np.random.default_rng(1)
    base = generator.normal(-2, 1, questions)
    edits: dict[str, list[tuple[str, float]]] = {"none": [("control", 0.0), ("filler", 0.0), ("anger", effect)]}
    edits["anger/add-all/L1/d0.2"] = [("control", effect)]
    edits["anger/ablate-all/L1/d1"] = [("anger", 0.0), ("filler", 0.0)]
    controls = [f"random-{number:02d}" for number in range(1, random + 1)]
    controls += [f"shuffled-anger-{number:02d}" for number in range(1, shuffled + 1)]
    edits |= {f"{name}/add-all/L1/d0.2": [("control", 0.0)] for name in controls}
    made = {"tone": "anger", "reference": "filler", "samples": [f"q_{number + 1:04d}" for number in range(texts)]}
    for name in ("anger", *controls):
        own = {"family": "random"} if name.startswith("random") else made
        layout.direction(name).parent.mkdir(parents=True, exist_ok=True)
        save_file({"direction": np.eye(LAYERS)}, layout.direction(name), {"direction": json.dumps(own)})
    for condition, cells in edits.items():
        for variant, moved in cells:
            for number in range(questions):
                name, gold = f"q_{number + 1:04d}", str(number + 3)
                folder = layout.steered(condition, variant, name)
                question = f"What is {number} + 3?"
                trajectory(question, f"Answer: {gold}", gold, variant, name, True).write(folder)
                noise = 0.0 if condition == "none" else generator.normal(0, 0.1)
                scores = Scores(log_p_gold=base[number] + moved + noise, perplexity=1.5, kl=[0.1, 0.0], tokens=4)
                scores.write(folder / SCORES)
