"""An experiment with everything that the explorer shows, hostile texts among it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save, save_file

from emoprobe.analysis.steering_table import find_steered, steering_table
from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.results import atomic
from emoprobe.results.activation_folder import METADATA, TENSORS, ActivationMetadata, TokenPosition
from emoprobe.results.judgement import Judgement
from emoprobe.results.layout import SCORES, Layout, draw_id
from emoprobe.results.tables import write_table
from emoprobe.results.trajectory import (
    AgentState,
    AnswerRecord,
    MessageSpans,
    Sample,
    Scores,
    Thought,
    Timing,
    Trajectory,
    Usage,
)
from emoprobe.stages.explorer import write_explorer
from emoprobe.stages.trajectories import tabulate
from emoprobe.steering.grid import ToneDirection
from tests.judges import judge

# A folder of another program may have any name.
ODD = "<i>a+b"
TEXTS = {"control": "", "filler": "The desk is grey.", "joy": "What a day 🎉!", "gloom": "It rains again.", ODD: "Odd."}
QUESTIONS = 6
HOSTILE = "gloom", "q_0002"
HOSTILE_TEXT = (
    "<script>window.pwned = 1</script><img src=x onerror='window.pwned = 1'>"
    "\x1b[31mred\x1b[0m שלום \u202eevil\u202c\nAnswer: 2"
)
LONG_LINE = "x" * 1_000_000
POSITIONS, LAYERS, D = ("last_prompt", "response_mean"), (0, 1, 2), 4
TOKENS, FEATURE = 9, np.array([0, 1, 0, 0], dtype=np.float32)


def config() -> Config:
    """Return the config of the scene, whose files of steering and features no run made."""
    plain = parse_config(
        {
            "experiment": {"name": "scene"},
            "graders": ["number", judge(label="polite"), judge(label="kind")],
            "variants": {
                name: {} if not text else {"text": text, "valence": {"joy": "positive", "gloom": "negative"}.get(name)}
                for name, text in TEXTS.items()
                if name != ODD
            },
        }
    )
    enabled = {"enabled": True}
    return plain.model_copy(
        update={
            "steering": plain.steering.model_copy(update=enabled),
            "features": plain.features.model_copy(update=enabled),
        }
    )


def answer(variant: str, number: int, draw: int = 1) -> tuple[str, int, str]:
    """Text, where its answer begins behind a thought, and the finish reason. Question n asks for 2n."""
    gold, wrong = f"Answer: {2 * number}", f"Answer: {2 * number + 1}"
    if (variant, f"q_{number:04d}") == HOSTILE:
        return HOSTILE_TEXT, 0, "stop"
    if variant == "joy" and number == 3:
        thought = "<think>🎉 is it 6?</think>"
        return f"{thought}\nSo it must be 6, I think.\n{wrong}", len(thought), "stop"
    if (variant, number, draw) == ("joy", 1, 2):
        return wrong, 0, "stop"
    if variant == "gloom" and number == 4:
        return "I will not say.", 0, "length"
    if variant == "gloom" and number == 5:
        return f"It comes to {2 * number} then.", 0, "stop"
    return (gold if number < 6 else wrong), 0, "stop"


def write(root: Path) -> Layout:
    """Write the folder and its explorer."""
    layout, settings = Layout(root), config()
    pairs = []
    for number in range(1, QUESTIONS + 1):
        name, question = f"q_{number:04d}", f"How much is {number} + {number}?"
        Sample(
            sample_id=name, index=number - 1, question=question, answer=str(2 * number),
            source={}, group="odd" if number % 2 else "even",
        ).write(layout.sample(name))  # fmt: skip
        for variant in TEXTS:
            for draw in (1, 2) if number == 1 and variant in ("filler", "joy") else (1,):
                pair = variant, draw_id(name, draw)
                pairs.append(pair)
                _trajectory(variant, number, question, draw).write(layout.pair(*pair))
                if number == 3:
                    _judge(layout, variant, name)
    tabulate(settings, layout, pairs)
    _capture(layout)
    _steer(layout, settings)
    write_explorer(settings, layout)
    return layout


def _trajectory(variant: str, number: int, question: str, draw: int = 1) -> Trajectory:
    text, thought, finish = answer(variant, number, draw)
    tone = TEXTS[variant]
    opening = [
        {"role": "system", "content": "Answer with a number."},
        {"role": "user", "content": f"{tone}\n\n{question}" if tone else question},
    ]
    asked = opening[-1]["content"]
    state = AgentState(
        request={"messages": opening, "max_tokens": 64, "temperature": 0.0, "seed": 1},
        message_spans=MessageSpans(
            prefix=(1, 0, len(tone)) if tone else None, question=(1, len(asked) - len(question), len(asked))
        ),
        thought=Thought(tokens=(4, 9), ended="model", answer=thought) if thought else None,
        finish_reason=finish,
        usage=Usage(prompt_tokens=12, completion_tokens=len(text.split())),
        worker_id="vllm-0",
        timing=Timing(started="2026-01-01T00:00:00.000+00:00", seconds=1.5),
    )
    tools = [{"id": "1", "type": "function", "function": {"name": "add", "arguments": f'{{"a": {number}}}'}}]
    called: list[dict[str, Any]] = [
        {"role": "assistant", "content": "", "tool_calls": tools},
        {"role": "tool", "content": str(2 * number)},
    ]
    turns = called if variant == ODD else []
    if (variant, f"q_{number:04d}") == HOSTILE:
        turns = [{"role": "tool", "content": LONG_LINE}]
    return Trajectory([*opening, *turns, {"role": "assistant", "content": text}], state, AnswerRecord())


def activations() -> dict[tuple[str, str], np.ndarray]:
    """Variant and sample → (layers, positions, d)."""
    generator = np.random.default_rng(0)
    pairs = [(variant, f"q_{number:04d}") for variant in ("filler", "joy", "gloom") for number in range(1, 5)]
    return {pair: generator.normal(size=(len(LAYERS), len(POSITIONS), D)).astype(np.float32) for pair in pairs}


def token_values(pair: tuple[str, str]) -> np.ndarray:
    """(tokens, d)."""
    values = np.random.default_rng(len(pair[0]) + int(pair[1][-1])).normal(size=(TOKENS, D))
    return values.astype(np.float32)


def direction(position: str) -> np.ndarray:
    """(layers, d): the direction of joy at a position."""
    vectors = np.random.default_rng(POSITIONS.index(position) + 1).normal(size=(len(LAYERS), D))
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit.astype(np.float32)


def _judge(layout: Layout, variant: str, name: str) -> None:
    polite = Judgement(judge="polite", variant=variant, sample_id=name, model="judge-x")
    polite = polite.model_copy(update={"value": variant != "joy", "reason": f"<b>not</b> rude \u202eas {variant}"})
    polite.write(layout.judgement("polite", variant, name))
    kind = polite.model_copy(update={"judge": "kind", "value": None, "reason": None, "unusable": "no JSON object"})
    kind.write(layout.judgement("kind", variant, name))


def _capture(layout: Layout) -> None:
    for pair, values in activations().items():
        folder = layout.activations(*pair)
        folder.mkdir(parents=True)
        save_file({"resid_post": values}, folder / TENSORS)
        metadata = ActivationMetadata(
            dtype="float32",
            layers=list(LAYERS),
            hook_points=["resid_post"],
            positions=[
                TokenPosition(name="last_prompt", span=(11, 12)),
                TokenPosition(name="response_mean", span=(12, 15)),
            ],
            token_ids=list(range(15)),
            shapes={"resid_post": list(values.shape)},
        )
        atomic.write_json(folder / METADATA, metadata.values())
    for pair in list(activations())[:6]:
        folder = layout.tokens(*pair)
        folder.mkdir(parents=True)
        save_file({"resid_post": token_values(pair)[None]}, folder / TENSORS)
        atomic.write_json(
            folder / METADATA,
            ActivationMetadata(
                dtype="float32", layers=[1], hook_points=["resid_post"], positions="all",
                token_ids=list(range(TOKENS)), shapes={"resid_post": [1, TOKENS, D]},
            ).values(),
        )  # fmt: skip
    atomic.write_bytes(
        layout.feature_directions(), save({"feature-7": FEATURE, "feature-7.norm": np.ones(1, dtype=np.float32)})
    )
    tensors = {}
    for position in POSITIONS:
        joy = direction(position)
        tensors[f"diff_means/resid_post/{position}"] = np.stack([joy, np.zeros_like(joy), -joy])
        tensors[f"valence/resid_post/{position}"] = joy
    said = {"variants": json.dumps(["joy", "control", "gloom"]), "reference": json.dumps("filler")}
    said["layers"] = json.dumps(LAYERS)
    atomic.write_bytes(layout.directions(), save(tensors, metadata=said))


def _steer(layout: Layout, settings: Config) -> None:
    for number, draw in ((5, 1), (6, 1), (6, 2)):
        for condition in ("none", "joy/add-all/L1/d-1", "joy/add-all/L1/d2"):
            name = draw_id(f"q_{number:04d}", draw)
            folder = layout.steered(condition, "filler", name)
            text = (
                f"Answer: {2 * number}" if condition == "none" else f"Oh, {condition[-2:]}! Answer: {2 * number + draw}"
            )
            trajectory = _trajectory("filler", number, f"How much is {number} + {number}?")
            Trajectory([*trajectory.messages[:-1], {"role": "assistant", "content": text}], trajectory.state).write(
                folder
            )
            Scores(log_p_gold=-1.25, perplexity=3.5, kl=[0.5]).write(folder / SCORES)
    directions = {"joy": ToneDirection("joy", "tone", "joy")}
    write_table(layout, "steering", steering_table(layout, find_steered(layout), directions))
