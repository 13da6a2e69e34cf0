"""Conversations of several turns in a real run, in which a server is killed in the second turn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from emoprobe.conversations.requests import request_seed, turn_seed
from emoprobe.results.tables import read_table
from emoprobe.results.trajectory import Trajectory
from tests.byte_tokenizer import TOOL_CHATML
from tests.conftest import StubServer
from tests.workspace import Workspace, wait_for

SAMPLES = [f"gsm8k_{number:04d}" for number in range(1, 5)]
FIRST = {request_seed(42, name) for name in SAMPLES}
SECOND = {turn_seed(seed, 2) for seed in FIRST}


SCRIPT: dict[str, Any] = {"kind": "scripted", "turns": [{"text": "That is wrong. Try again."}, {"text": "Sure?"}]}
AGENT: dict[str, Any] = {
    "kind": "agent",
    "tools": ["emoprobe.conversations.example_tools:calculator"],
    "tool_parser": "hermes",
    "max_turns": 4,
}


@pytest.mark.parametrize("kind", ["scripted", "agent"])
def test_a_server_that_is_killed_in_turn_2_costs_that_turn_and_a_deleted_conversation_comes_back(
    stub: Callable[..., StubServer], workspace: Callable[..., Workspace], unweighted: Path, tmp_path: Path, kind: str
) -> None:
    scripted = kind == "scripted"
    model = shutil.copytree(unweighted, tmp_path / "model")
    if not scripted:
        (model / "chat_template.jinja").write_text(TOOL_CHATML)
    killed, other = stub(model=model), stub(model=model)
    run = workspace(killed, other, model={"source": str(model)}, conversation=SCRIPT if scripted else AGENT)
    calm = {"text": "It is a quiet day."}
    run.config["variants"] = {"control": {}, "calm": calm | ({"turn": 2} if scripted else {})}
    killed.set_faults({"kind": "hold", "match": "Try again" if scripted else "tool_call_id", "times": 99})
    process = run.start()
    seeds: list[int] = []

    def all_reached_turn_2() -> bool:
        seeds[:] = [request["seed"] for server in (killed, other) for request in server.requests()]
        return sum(seed in SECOND for seed in seeds) == 8

    def first_answers() -> int:
        return sum(request["seed"] in FIRST for request in other.requests())

    wait_for(all_reached_turn_2, what="turn 2 of all conversations")
    asked_before = first_answers()
    killed.stop()
    assert process.wait(300) == 0
    assert sorted(seed for seed in seeds if seed in FIRST) == sorted([*FIRST, *FIRST])
    assert first_answers() == asked_before  # none was asked for again
    root = run.layout.root
    found = {path.parent: Trajectory.read(path.parent) for path in root.glob("*/*/trajectory.jsonl")}
    states = [each.state for each in found.values() if each.state is not None]
    assert len(states) == 8
    first, second = zip(*([*(state.earlier_turns or []), state][:2] for state in states), strict=True)
    assert {len(turn.attempts) for turn in second} == {1, 2}
    assert {len(turn.attempts) for turn in first} == {1}
    assert {turn.finish_reason for turn in first} == {"stop" if scripted else "tool_calls"}
    table = read_table(root, "trajectories")
    assert set(table["turns"]) == {3 if scripted else 2}
    assert (table["survived"].notna() == table["correct_first"].fillna(False)).all()
    said = {one["about"]: one["verdict"] for one in json.loads((root / "report.json").read_text())["statements"]}
    if scripted:
        assert (said["survived:calm-control"] == "note") == (not table["correct_first"].any())

    before = run.trajectories()
    run.config["workers"]["endpoints"] = [other.url]
    run.layout.pair("calm", SAMPLES[2]).joinpath("trajectory.jsonl").unlink()
    assert run.planned()["generate"] == 1
    run.run()
    assert run.trajectories() == before
    assert run.planned() == {}
    run.config["conversation"] |= {"turns": [*SCRIPT["turns"], {"text": "Sure?"}]} if scripted else {"max_turns": 3}
    assert run.planned()["generate"] == 8
