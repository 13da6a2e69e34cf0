"""Conversations of several turns in a real run, in which a server is killed in the second turn."""

from __future__ import annotations

import json
from collections.abc import Callable

from emoprobe.conversations.requests import request_seed, turn_seed
from emoprobe.results.tables import read_table
from emoprobe.results.trajectory import Trajectory
from tests.conftest import StubServer
from tests.workspace import Workspace, wait_for

SAMPLES = [f"gsm8k_{number:04d}" for number in range(1, 5)]
FIRST = {request_seed(42, name) for name in SAMPLES}
SECOND = {turn_seed(seed, 2) for seed in FIRST}


def test_a_server_that_is_killed_in_turn_2_costs_that_turn_and_a_deleted_conversation_comes_back(
    stub: Callable[..., StubServer], workspace: Callable[..., Workspace]
) -> None:
    killed, other = stub(), stub()
    script = {"kind": "scripted", "turns": [{"text": "That is wrong. Try again."}, {"text": "Sure?"}]}
    run = workspace(killed, other, conversation=script)
    run.config["variants"] = {"control": {}, "calm": {"text": "It is a quiet day.", "turn": 2}}
    killed.set_faults({"kind": "hold", "match": "Try again", "times": 99})
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
    again = [len((state.earlier_turns or [])[1].attempts) for state in states]
    assert set(again) == {1, 2}
    assert all(len((state.earlier_turns or [])[0].attempts) == 1 for state in states)
    table = read_table(root, "trajectories")
    assert set(table["turns"]) == {3}
    assert (table["survived"].notna() == table["correct_first"].fillna(False)).all()
    said = {one["about"]: one["verdict"] for one in json.loads((root / "report.json").read_text())["statements"]}
    assert (said["survived:calm-control"] == "note") == (not table["correct_first"].any())

    before = run.trajectories()
    run.config["workers"]["endpoints"] = [other.url]
    run.layout.pair("calm", SAMPLES[2]).joinpath("trajectory.jsonl").unlink()
    assert run.planned()["generate"] == 1
    run.run()
    assert run.trajectories() == before
    assert run.planned() == {}
    run.config["conversation"]["turns"][1]["text"] = "Are you sure?"
    assert run.planned()["generate"] == 8
