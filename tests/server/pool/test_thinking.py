"""Completions with a thought, from a client's question to the files: budgets, captures and edits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from emoprobe.conversations.rendering import Renderer
from emoprobe.conversations.requests import continued_seed
from emoprobe.results.trajectory import AgentState, Trajectory
from server.pool import jobs, steering
from tests import byte_tokenizer, thinking_model
from tests.emoprobe.conversations.templates import THINKING
from tests.emoprobe.workflow.stage_outputs import CONFIG, Scene
from tests.nnsight_server import NNsightServer
from tests.server.pool.house import House, trajectory

SAMPLE = "gsm8k_0001"
BUDGET = 5
SAID = {
    "qwen3": "<think>\nIt may be 4.\n</think>\n\nAnswer: 3",
    "r1": "It may be 4.\n</think>\n\nAnswer: 3",
    "harmony": "<|channel|>analysis<|message|>It may be 4.<|end|><|start|>assistant<|channel|>final<|message|>Answer: 3",
}


def answered(
    house: House, family: str, said: str, name: str = "one", **generation: Any
) -> tuple[Trajectory, list[dict[str, Any]], Renderer]:
    """The trajectory of a model that says something, and what it was asked."""
    layout = house.add(name, generation={"thinking": {"budget": BUDGET}, "max_tokens": 200, **generation})
    folder = house.folder / "models/a"
    template, special, added = THINKING[family]
    byte_tokenizer.write(folder, template, special, added)
    stub = house.stub("a")
    stub.faults = [{"kind": "thought", "says": said, "tokenizer": str(folder / "tokenizer.json"), "times": 99}]
    stub.requests.clear()

    async def scenario() -> None:
        async with house.pool():
            assert await house.ask("generate", name, "control", SAMPLE) == "ok\n"

    asyncio.run(scenario())
    return trajectory(layout, "control", SAMPLE), list(stub.requests), Renderer.load(folder)


@pytest.mark.parametrize("family", THINKING)
def test_a_thought_is_closed_when_its_budget_is_used_up(house: House, family: str) -> None:
    found, (first, second), renderer = answered(house, family, SAID[family])
    state, markers = found.state, renderer.markers
    assert state is not None
    assert state.thought is not None
    assert state.token_ids is not None
    assert markers is not None
    begin = 0 if family == "r1" else len(markers.begin)
    assert first["max_tokens"] == BUDGET + begin
    closing = renderer.encode(markers.family.closing)[0]
    spoken = renderer.encode(SAID[family])[0][: begin + BUDGET]
    assert second["prompt"] == [*first["prompt"], *spoken, *closing]
    assert second["max_tokens"] == 200 - len(spoken) - len(closing)
    assert second["seed"] == continued_seed(first["seed"])
    assert {key for key in first if first[key] != second[key]} == {"prompt", "max_tokens", "seed"}
    assert found.completion.strip() == "Answer: 3"
    assert (state.thought.ended, state.finish_reason) == ("budget", "stop")
    assert found.messages[-1]["reasoning_content"] == renderer.vocabulary.decode(spoken[begin:])
    assert state.thought.span == (len(first["prompt"]) + begin, len(first["prompt"]) + begin + BUDGET)
    assert state.prompt_token_ids == first["prompt"]
    assert state.token_ids == [*second["prompt"], *renderer.encode("Answer: 3")[0]]
    assert state.usage.completion_tokens == len(state.completion_token_ids or ())
    assert len(state.attempts) == 2
    # It is made again byte for byte.
    again, *_ = answered(house, family, SAID[family], "again")
    assert again.messages == found.messages


def test_a_thought_within_its_budget_is_left_as_it_is(house: House) -> None:
    """The second request continues the same tokens, if the first one does not hold the whole completion."""
    said = "<think>4?</think>\n\nThat is all. Answer: 3"
    found, requests, _ = answered(house, "qwen3", said)
    whole, once, _ = answered(house, "qwen3", said, "whole", thinking="on")
    assert (len(requests), len(once)) == (2, 1)
    assert found.messages == whole.messages
    assert found.state is not None
    assert whole.state is not None
    assert found.state.thought == whole.state.thought
    assert found.state.completion_token_ids == whole.state.completion_token_ids
    short, asked, _ = answered(house, "r1", "</think>3", "short", thinking={"budget": 20})
    assert (short.completion, len(asked)) == ("3", 1)


def test_a_budget_leaves_max_tokens_as_they_are(house: House) -> None:
    """Closed or not, a completion is no longer than it may be."""
    found, requests, _ = answered(house, "qwen3", SAID["qwen3"], max_tokens=BUDGET + 2)
    assert len(requests) == 1
    assert found.is_cut_off_in_thought
    assert found.completion == ""
    assert found.state is not None
    assert len(found.state.completion_token_ids or ()) == BUDGET + 1


@pytest.fixture(scope="module")
def scene(tiny: Callable[[str], Path], nnsight_server: Callable[[str], NNsightServer], tmp_path_factory: Any) -> Any:
    """Make experiments on a real server, whose model has no thought of its own; the tokenizer here marks some."""
    server = nnsight_server("llama")

    def make(family: str, name: str, **sections: Any) -> Scene:
        model = thinking_model.make(tiny("llama"), tmp_path_factory.mktemp(family), family, weights=False)
        values = {"experiment": {"name": name, "seed": 5}, "prompt": {"system": None}, **sections}
        return Scene.make(model, server.url, server.root, **values)

    return make


def test_positions_of_the_thought_are_captured(scene: Any) -> None:
    capture = {"layers": [1], "hook_points": ["resid_post"], "dtype": "float32"}
    generation = {"backend": "nnsight", "max_tokens": 12, "thinking": {"budget": 4}}
    positions = ["thinking_mean", "thinking_last", "last_prompt"]
    named = scene("r1", "named", generation=generation, capture={**capture, "positions": positions})
    state = named.answer("control", "q_0001")
    ids, length = state.token_ids or [], len(state.prompt_token_ids or ())
    assert state.thought is not None
    assert state.thought.span == (length, length + 4)
    start, end = state.thought.span
    every = scene("r1", "every", generation=generation, capture={**capture, "positions": "all"})
    assert every.answer("control", "q_0001").token_ids == ids
    found, tokens = (
        load_file(each.experiment.layout.activations("control", "q_0001") / "activations.safetensors")["resid_post"]
        for each in (named, every)
    )
    assert tokens.shape[1] == len(ids)
    np.testing.assert_allclose(found[:, 0], tokens[:, start:end].mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[:, 1], tokens[:, end - 1], rtol=1e-4, atol=1e-5)
    asyncio.run(jobs.capture(named.experiment, named.fleet, "control", "q_0001"))
    folder = named.experiment.layout.activations("control", "q_0001")
    metadata = json.loads((folder / "metadata.json").read_text())
    assert metadata["spans"]["thought"] == [start, end]
    assert not any(position["empty"] for position in metadata["positions"])
    # Without a thought its positions are empty, as the prefix of control is.
    unthought = scene("qwen3", "unthought", generation=generation, capture={**capture, "positions": positions})
    assert unthought.answer("control", "q_0001").thought is None
    folder = unthought.experiment.layout.activations("control", "q_0001")
    metadata = json.loads((folder / "metadata.json").read_text())
    assert [position["empty"] for position in metadata["positions"]] == [True, True, False]
    assert "thought" not in metadata["spans"]


@pytest.mark.parametrize("phase", ["all", "generation"])
def test_a_completion_in_two_requests_is_edited_as_one(scene: Any, phase: str) -> None:
    """The model of this server marks no thought, so that the budget divides the request and changes no token."""
    states = []
    for name, thinking in ((f"whole-{phase}", "on"), (f"divided-{phase}", {"budget": 3})):
        made = scene(
            "qwen3",
            name,
            generation={"backend": "nnsight", "max_tokens": 10, "thinking": thinking},
            steering=CONFIG["steering"] | {"phases": [phase]},
        )
        path = made.experiment.layout.direction("joy")
        path.parent.mkdir(parents=True, exist_ok=True)
        vector = np.cos(np.arange(3 * 48, dtype=np.float32)).reshape(3, 48)
        norms = np.full(3, 2.0, np.float32)
        save_file({"direction": vector / np.linalg.norm(vector, axis=1, keepdims=True), "direction.norm": norms}, path)
        sample = made.experiment.steering.steered[0]
        where = f"joy/add-{phase}/L1/d4/control"
        asyncio.run(steering.steer(made.experiment, made.fleet, where, sample))
        states.append(
            AgentState.read_file(made.experiment.layout.root / "steering" / where / sample / "agent_state.json")
        )
    whole, divided = states
    assert divided.completion_token_ids == whole.completion_token_ids
    assert divided.response["ndif"]["steering"][0]["tokens"] == whole.response["ndif"]["steering"][0]["tokens"]
