"""Steered trajectories and their scores, from a client's question to the files."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from emoprobe.results import atomic
from emoprobe.results.layout import Layout
from emoprobe.results.trajectory import Scores, Trajectory
from tests.conftest import StubServer
from tests.server.pool.house import House

VARIANTS = {"control": {}, "joy": {"text": "Wonderful!", "valence": "positive"}}
STEERING = {"enabled": True, "layers": [1], "doses": [0.5], "controls": {"random": 1, "shuffled": 0}}
EDITED = "joy/add-all/L1/d0.5/control"
PLAIN = "none/control"


@pytest.fixture
def layout(house: House, smollm2: Path) -> Layout:
    """An experiment with a direction, on a stub that has the embedded model's tokenizer."""
    found = house.add(
        "one",
        variants=VARIANTS,
        capture={"hook_points": ["resid_post"]},
        generation={"allowed_failures": 0.2},
        steering={**STEERING, "scores": {"gold": "{answer}<|im_end|>", "kl_tokens": 4}},
        workers={"attempts": 2},
    )
    card = json.loads(found.model.read_text())
    atomic.write_json(found.model, card | {"path": str(smollm2)})
    content = save({"direction": np.ones((30, 576), np.float32), "direction.norm": np.ones(30, np.float32)})
    atomic.write_bytes(found.direction("joy"), content)
    return found


def steered(house: House, layout: Layout) -> list[str]:
    """The samples of the steered half."""
    from emoprobe.config.files import parse_config
    from emoprobe.steering.grid import SteeringGrid

    config = parse_config(json.loads((house.plan / "one.json").read_text()))
    return SteeringGrid(config, (None,) * 4, 30).steered


def ask(house: House, *jobs: tuple[str, str, str], fault: dict[str, Any] | None = None) -> list[str]:
    async def scenario() -> list[str]:
        house.stub("a").faults = [dict(fault)] if fault else []
        async with house.pool():
            return [await house.ask(kind, "one", where, name) for kind, where, name in jobs]

    return asyncio.run(scenario())


def test_the_edit_and_the_hash_of_its_direction_go_along(house: House, layout: Layout) -> None:
    name = steered(house, layout)[0]
    assert ask(house, ("steer", EDITED, name), ("steer", PLAIN, name)) == ["ok\n", "ok\n"]
    edited, plain = house.stub("a").requests
    edit = {
        "file": "one/steering/directions/joy.safetensors",
        "key": "direction",
        "sha256": hashlib.sha256(layout.direction("joy").read_bytes()).hexdigest(),
        "layers": [1],
        "operation": "add",
        "dose": 0.5,
        "phase": "all",
    }
    assert edited["ndif"] == {"steering": [edit]}
    assert "ndif" not in plain
    assert {key: value for key, value in edited.items() if key != "ndif"} == plain
    found = Trajectory.read(layout.steered("joy/add-all/L1/d0.5", "control", name))
    assert found.state is not None
    assert found.state.backend == "nnsight"
    assert found.state.response["ndif"]["steering"] == [edit | {"tokens": [7]}]


def test_a_server_that_shares_no_disk_is_sent_the_direction(
    house: House, layout: Layout, stub: Callable[..., StubServer]
) -> None:
    server, name = stub(), steered(house, layout)[0]
    path = house.plan / "one.json"
    config = json.loads(path.read_text())
    elsewhere = {"capture_endpoints": [server.url], "capture_files": "fetch", "model_name": "stub"}
    path.write_text(json.dumps(config | {"workers": config["workers"] | elsewhere}))
    assert ask(house, ("steer", EDITED, name), ("score", EDITED, name)) == ["ok\n", "ok\n"]
    edits = [request["ndif"]["steering"][0] for request in server.requests() if "ndif" in request]
    assert len(edits) == 3  # the answer, the gold answer and the first tokens
    for edit in edits:
        assert base64.b64decode(edit["rows"]) == np.ones(576, np.float32).tobytes()
        assert edit["lengths"] == [1.0]
    found = Trajectory.read(layout.steered("joy/add-all/L1/d0.5", "control", name))
    assert found.state is not None
    assert found.state.request["ndif"]["steering"][0].keys() & {"rows", "lengths"} == set()


def test_scores_are_those_of_gold_answer_text_and_first_tokens(house: House, layout: Layout) -> None:
    name = steered(house, layout)[0]
    jobs = [(kind, where, name) for where in (EDITED, PLAIN) for kind in ("steer", "score")]
    assert set(ask(house, *jobs)) == {"ok\n"}
    edited, plain = (
        Scores.read_file(layout.root / "steering" / where / name / "scores.json") for where in (EDITED, PLAIN)
    )
    # The stub says -0.5 of every token: "3" and the end of turn, and the 32 tokens of the answer.
    assert (edited.gold, edited.gold_tokens, edited.log_p_gold) == ("3<|im_end|>", 2, -1.0)
    assert edited.tokens == 32
    assert edited.perplexity == pytest.approx(np.exp(0.5))
    assert edited.kl == [0.25] * 4
    assert plain.kl == [0.0] * 4
    scoring = [request for request in house.stub("a").requests if request.get("echo")]
    prompt = len(house.stub("a").requests[0]["prompt"])
    assert prompt > 32
    assert [("ndif" in request, len(request["prompt"]) - prompt) for request in scoring] == [
        (True, 32), (True, 2), (False, 32), (False, 2),
    ]  # fmt: skip
    assert (scoring[0]["ndif"]["prompt_tokens"], scoring[0]["ndif"]["kl"]) == (prompt, 4)


def test_an_answer_that_begins_with_the_gold_one_is_read_once(house: House, layout: Layout) -> None:
    name = steered(house, layout)[0]
    assert ask(house, ("steer", EDITED, name), ("score", EDITED, name)) == ["ok\n", "ok\n"]
    *_, forced = (request for request in house.stub("a").requests if request.get("echo"))
    path = layout.root / "steering" / EDITED / name / "agent_state.json"
    state = json.loads(path.read_text())
    prompt = state["prompt_token_ids"]
    assert forced["prompt"][: len(prompt)] == prompt
    state["completion_token_ids"] = [*forced["prompt"][len(prompt) :], 9]
    atomic.write_json(path, state)
    before = len(house.stub("a").requests)
    assert ask(house, ("score", EDITED, name)) == ["ok\n"]
    assert [len(request["prompt"]) for request in house.stub("a").requests[before:]] == [len(prompt) + 3]
    scores = Scores.read_file(path.parent / "scores.json")
    assert (scores.gold_tokens, scores.log_p_gold, scores.tokens) == (2, -1.0, 3)


def test_a_server_that_does_not_tell_of_the_edit_is_an_error(house: House, layout: Layout) -> None:
    name, fault = steered(house, layout)[0], {"kind": "deaf", "times": 999}
    assert ask(house, ("steer", EDITED, name), fault=fault) == ["ok\n"]  # one of eight may fail
    found = Trajectory.read(layout.steered("joy/add-all/L1/d0.5", "control", name))
    assert "does not tell that it was steered" in (found.failure or "")
    assert ask(house, ("score", EDITED, name)) == ["ok\n"]
    scores = Scores.read_file(layout.root / "steering" / EDITED / name / "scores.json")
    assert scores.error == found.failure
    assert scores.log_p_gold is None


def test_too_many_failures_are_told(house: House, layout: Layout) -> None:
    names = steered(house, layout)
    fault = {"kind": "status", "status": 400, "message": "the direction has 9 values", "times": 999}
    answers = ask(house, *(("steer", EDITED, name) for name in names), fault=fault)
    # Two questions: unsteered control and joy, joy and a random direction added, joy ablated in joy and in control.
    assert answers[0] == "ok\n"
    assert answers[1] == "ok\n"
    (answer,) = ask(house, ("steer", PLAIN, names[0]), fault=fault)
    assert "the direction has 9 values" in answer
    assert "allows 2 of 12 pairs to fail; 2 have been recorded" in answer


def test_what_is_not_planned_is_refused(house: House, layout: Layout) -> None:
    (answer,) = ask(house, ("steer", "joy/add-all/L1/d0.75/control", "gsm8k_0001"))
    assert "no steered trajectory joy/add-all/L1/d0.75/control/gsm8k_0001" in answer
