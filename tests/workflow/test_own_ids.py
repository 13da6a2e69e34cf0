"""A data set with own ids that grows at both ends: only what is new is planned, and nothing else changes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

from tests.conftest import StubServer
from tests.workspace import Workspace, jobs_in

DATA = {"samples": 3, "id": "uid", "id_prefix": "q", "group": None}


def write(path: Path, *names: str) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["uid", "question", "answer"])
        writer.writerows([name, f"What is {len(name)} + {name}?", "7"] for name in names)


def test_rows_added_at_both_ends_plan_the_new_questions_alone(
    stub: Callable[..., StubServer], workspace: Callable[..., Workspace]
) -> None:
    server = stub()
    variants = {"control": {}, "joy": {"texts": [f"Lovely {number}!" for number in range(7)], "valence": "positive"}}
    path = workspace(server).folder / "mine.csv"
    write(path, "b", "c", "d-x")
    generation = {"temperature": 0.5, "draws": 2}
    run = workspace(server, dataset={**DATA, "source": str(path)}, generation=generation)
    run.config["variants"] = variants
    target = ["trajectories"]
    run.run(*target)
    before = run.trajectories()
    assert len(before) == 12
    assert "joy/q_d-x-d2/trajectory.jsonl" in before
    assert run.planned(*target) == {}

    write(path, "new", "b", "c", "d-x", "new-2")
    run.config["dataset"]["samples"] = 5
    planned = run.planned(*target)
    assert (planned.pop("prepare_sample"), planned.pop("generate")) == (2, 8)
    assert planned.keys() <= {"trajectories"}
    run.run(*target)
    after = run.trajectories()
    assert {name: after[name] for name in before} == before
    assert len(after) == 20
    assert run.planned(*target) == {}

    # One row with another answer: its sample and what follows from it alone.
    path.write_text(path.read_text().replace("What is 1 + c?,7", "What is 1 + c?,8"))
    assert jobs_in(run.run("-n", *target))["prepare_sample"] == 1
    run.run(*target)
    assert run.json("samples", "q_c.json")["answer"] == "8"
    assert run.json("samples", "q_b.json")["source"] == {"id": "b", "solution": "7"}

    write(path, "b", "B")
    run.config["dataset"]["samples"] = 2
    assert "row 2 of" in (refused := run.run("-n", *target, ok=False))
    assert "has the id of row 1 in column 'uid'" in refused
