"""What each stage makes of a tiny random model and a few questions, by the pool's own jobs and a real NNsight server.

`python -m tests.emoprobe.workflow.stage_outputs STAGE…` stores the outputs of stages whose version was raised.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import httpx
import numpy as np
from safetensors.numpy import load_file, save_file

from emoprobe.config.experiment import Config
from emoprobe.config.files import parse_config
from emoprobe.conversations.judging import judge_request, read_reply
from emoprobe.conversations.responses import Delivery
from emoprobe.conversations.samples import draw
from emoprobe.models.dequantise import dequantise
from emoprobe.models.source import ModelCard
from emoprobe.results import atomic
from emoprobe.results.trajectory import AgentState
from emoprobe.workflow.triggers import STAGES
from server.pool import jobs, outcomes, steering
from server.pool.fleet import Fleet, ServerDemand
from server.pool.run import ExperimentJobs
from tests.conftest import PATIENCE
from tests.judges import judge
from tests.workspace import ROOT

STORED = ROOT / "tests/fixtures/stages.json"
ROWS = [
    {"question": "2 + 3 = ?", "answer": "5", "options": ["4", "5", "6"]},
    {"question": "How many legs have two cats?", "answer": "8", "options": ["6", "8", "10"]},
    {"question": "Half of 9?", "answer": "4.5", "options": ["4.5", "5", "9"]},
    {"question": "7 - 9 = ?", "answer": "-2", "options": ["-2", "2", "16"]},
]
CONFIG: dict[str, Any] = {
    "experiment": {"name": "stages", "seed": 5},
    "model": {"source": "/tiny"},
    "prompt": {
        "system": "You answer with a number.",
        "template": "Question: {question}",
        "examples": [{"question": "1 + 1 = ?", "answer": "Answer: 2"}],
    },
    "variants": {
        "control": {},
        "filler": {"text": "There is a table."},
        "joy": {"texts": ["What a day!", "How lovely!"], "placement": "user_suffix", "valence": "positive"},
        "calm": {"text": "Stay calm.", "placement": "system_prefix"},
        "mixed": {"scramble": "joy"},
    },
    "generation": {"backend": "nnsight", "max_tokens": 6},
    "capture": {"layers": [0, 2], "hook_points": ["resid_post", "mlp_out"], "dtype": "float32"},
    "graders": ["number", {"name": "logprob", "gold": [" {answer}", " **{answer}**"]}],
    "workers": {"model_name": "tiny"},
    "steering": {
        "enabled": True,
        "layers": [1],
        "doses": [0.0, 4.0],
        "operations": ["add", "ablate"],
        "controls": {"random": 1, "shuffled": 0, "orthogonal": False},
    },
    "features": {"layer": 1, "dtype": "float32"},
}
SAMPLING = ("messages", "max_tokens", "temperature", "top_p", "seed", "stop")


class OneServer:
    """A fleet of one server that is there."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.workers: list[Any] = []

    async def deliver(self, asked: ServerDemand) -> tuple[dict[str, Any], Delivery]:
        """Ask once."""
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            response = await client.post(f"{self.url}{asked.path}", json=asked.body)
        assert response.status_code == 200, response.text
        return asked.check(response.json()), Delivery("only", [], "2026-01-01T00:00:00+00:00", 1.0)


@dataclass
class Scene:
    """An experiment in a folder below which a server writes."""

    folder: Path
    fleet: Fleet
    experiment: ExperimentJobs

    @classmethod
    def make(cls, model: Path, url: str, folder: Path, **sections: Any) -> Scene:
        """Write the data and what jobs wait for."""
        data = folder / "data.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        config = parse_config({**CONFIG, "dataset": {"source": str(data), "samples": 4, "id_prefix": "q"}, **sections})
        experiment = ExperimentJobs(config, folder, folder)
        card = ModelCard("tiny", str(model), None, "", 2048)
        atomic.write_json(experiment.layout.model, card.to_json())
        for sample in draw(config.dataset, config.experiment.seed):
            sample.write(experiment.layout.sample(sample.sample_id))
        return cls(folder, cast(Fleet, OneServer(url)), experiment)

    def answer(self, variant: str, name: str) -> AgentState:
        """Generate one answer."""
        asyncio.run(jobs.generate(self.experiment, self.fleet, variant, name))
        return AgentState.read_file(self.experiment.layout.pair(variant, name) / "agent_state.json")


def rounded(values: Any) -> Any:
    """Floats that another processor computes as well."""
    return np.round(np.asarray(values, dtype=np.float64), 3).tolist()


def exchange(state: AgentState) -> dict[str, Any]:
    """What was asked and answered."""
    asked = {key: state.request[key] for key in SAMPLING if key in state.request}
    return asked | {"prompt": state.prompt_token_ids, "completion": state.completion_token_ids}


def tensors(folder: Path) -> dict[str, Any]:
    """The places of positions, and the first values of each, of what was captured."""
    metadata = json.loads((folder / "metadata.json").read_text())
    found = {
        name: rounded(values[:, :, :3])
        for name, values in sorted(load_file(folder / "activations.safetensors").items())
    }
    return {"spans": metadata["spans"], "layers": metadata["layers"], "positions": metadata["positions"], **found}


def of_model(scene: Scene) -> Any:
    """The conversion of a quantised model."""
    from tests.emoprobe.models.test_dequantise import write_tiny

    with tempfile.TemporaryDirectory() as folder:
        write_tiny(Path(folder) / "tiny.gguf")
        (Path(folder) / "plain").mkdir()
        dequantise(Path(folder) / "tiny.gguf", Path(folder) / "plain")
        weights = load_file(Path(folder) / "plain/model.safetensors")
        tokenizer = json.loads((Path(folder) / "plain/tokenizer.json").read_text())["model"]
    found = {name: [rounded(values.ravel()[:3]), rounded(values.sum())] for name, values in sorted(weights.items())}
    return found | {"tokenizer": hashlib.sha256(json.dumps(tokenizer, sort_keys=True).encode()).hexdigest()}


def of_sample(scene: Scene) -> Any:
    """The questions of a file, of one with options, and of a task that is generated."""
    data = {"source": str(scene.folder / "data.jsonl"), "samples": 4, "id_prefix": "q"}
    made = {"source": "reasoning_gym:chain_sum", "arguments": {"min_terms": 2, "max_terms": 2}, "samples": 4}
    found = []
    for dataset in (data, data | {"choices": "options"}, made):
        config: Config = parse_config({**CONFIG, "dataset": dataset})
        for drawn in islice(draw(config.dataset, config.experiment.seed), 3):
            sample = drawn.values()
            found.append({key: sample[key] for key in ("question", "answer", "choices", "group") if sample.get(key)})
    return found


def of_generate(scene: Scene) -> Any:
    """The requests of every kind of variant, what the model sees, and what it answers."""
    pairs = [(variant, f"q_{number:04d}") for variant in scene.experiment.config.variants for number in (1, 2)]
    return {f"{variant}/{name}": exchange(scene.answer(variant, name)) for variant, name in pairs}


def of_outcomes(scene: Scene) -> Any:
    """Probabilities of gold answers."""
    found = {}
    for variant in ("control", "joy"):
        scene.answer(variant, "q_0002")
        asyncio.run(outcomes.measure(scene.experiment, scene.fleet, variant, "q_0002"))
        measured = json.loads((scene.experiment.layout.pair(variant, "q_0002") / "outcomes.json").read_text())
        found[variant] = [rounded(measured["log_p_gold"]), *(rounded(form["log_p"]) for form in measured["forms"])]
    return found


def of_capture(scene: Scene) -> Any:
    """Activations that are captured with an answer, and again from its tokens."""
    found = {}
    for variant in ("control", "joy"):
        scene.answer(variant, "q_0003")
        folder = scene.experiment.layout.activations(variant, "q_0003")
        found[f"{variant} inline"] = tensors(folder)
        asyncio.run(jobs.capture(scene.experiment, scene.fleet, variant, "q_0003"))
        found[f"{variant} replayed"] = tensors(folder)
    return found


def of_tokens(scene: Scene) -> Any:
    """One layer at every token."""
    scene.answer("joy", "q_0004")
    asyncio.run(jobs.capture_tokens(scene.experiment, scene.fleet, "joy", "q_0004"))
    return tensors(scene.experiment.layout.tokens("joy", "q_0004"))


def _steered(scene: Scene) -> dict[str, tuple[str, str]]:
    """Write a direction and steer along it: condition and variant → the arguments of the jobs."""
    vector = np.cos(np.arange(3 * 48, dtype=np.float32)).reshape(3, 48)
    unit = vector / np.linalg.norm(vector, axis=1, keepdims=True)
    path = scene.experiment.layout.direction("joy")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"direction": unit, "direction.norm": np.full(3, 2.0, np.float32)}, path)
    name = scene.experiment.steering.steered[0]
    where = ["none/control", "joy/add-all/L1/d4/control", "joy/ablate-all/L1/d1/joy"]
    for each in where:
        asyncio.run(steering.steer(scene.experiment, scene.fleet, each, name))
    return {each: (each, name) for each in where}


def of_steer(scene: Scene) -> Any:
    """Answers without an edit, along a direction, and with it taken out."""
    found = {}
    for each, (where, name) in _steered(scene).items():
        folder = scene.experiment.layout.root / "steering" / where / name
        state = AgentState.read_file(folder / "agent_state.json")
        edits = (state.response.get("ndif") or {}).get("steering") or []
        found[each] = exchange(state) | {"tokens": [edit["tokens"] for edit in edits]}
    return found


def of_score(scene: Scene) -> Any:
    """The scores of the same."""
    found = {}
    for each, (where, name) in _steered(scene).items():
        asyncio.run(steering.score(scene.experiment, scene.fleet, where, name))
        path = scene.experiment.layout.root / "steering" / where / name / "scores.json"
        scores = json.loads(path.read_text())
        found[each] = {key: value if isinstance(value, str) or value is None else rounded(value)
                       for key, value in scores.items() if key != "sha256"}  # fmt: skip
    return found


def of_judge(scene: Scene) -> Any:
    """What judges of each type are asked about an answer, or a pair, and what a reply is read as."""
    typed: list[tuple[dict[str, Any], str]] = [
        ({}, "true"),
        ({"value": "number", "range": [0.0, 10.0]}, "7"),
        ({"value": "category", "categories": ["warm", "cold"]}, '"cold"'),
    ]
    found = []
    for keys, value in typed:
        settings = parse_config({**CONFIG, "steering": {}, "graders": ["number", judge(**keys)]}).judges[0]
        asked = judge_request(settings, 5, str(ROWS[0]["question"]), ["Five.", "Still five."])
        found.append([asked, read_reply(settings, f'{{"reason": "so it is", "value": {value}}}')])
    pair = judge(compare_with="control")
    settings = parse_config({**CONFIG, "steering": {}, "graders": ["number", pair]}).judges[0]
    asked = judge_request(settings, 5, str(ROWS[0]["question"]), ["Five.", "Still five."], ["Six."])
    return [*found, [asked, read_reply(settings, '{"reason": "so it is", "value": "B"}')]]


OUTPUTS: dict[str, Callable[[Scene], Any]] = {
    "model": of_model,
    "sample": of_sample,
    "generate": of_generate,
    "outcomes": of_outcomes,
    "judge": of_judge,
    "capture": of_capture,
    "tokens": of_tokens,
    "steer": of_steer,
    "score": of_score,
}


def main() -> None:
    """Command line; see above."""
    from emoprobe.config.science.model import Model
    from emoprobe.models import source
    from tests.nnsight_server import NNsightServer
    from tests.server.capture import tiny_models

    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = Path(source.prepare(Model(), ROOT / "results/models").path)
        model = tiny_models.make("llama", tokenizer, Path(folder) / "llama")
        (Path(folder) / "results").mkdir()
        server = NNsightServer(model, Path(folder) / "results", copied=False)
        try:
            scene = Scene.make(model, server.url, server.root)
            for stage in sys.argv[1:] or STAGES:
                stored[stage] = {"version": STAGES[stage], "outputs": OUTPUTS[stage](scene)}
        finally:
            server.stop()
    lines = ",\n".join(f'"{stage}": {json.dumps(stored[stage], ensure_ascii=False)}' for stage in STAGES)
    STORED.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
