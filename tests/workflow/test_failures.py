"""What a run prints at its end where jobs have failed: the reasons, each with how many and which."""

from __future__ import annotations

from collections.abc import Callable

from tests.conftest import StubServer
from tests.workflow.pool import end_pool
from tests.workspace import Workspace

REFUSAL = {"kind": "status", "status": 400, "message": "the prompt is too long", "times": 99}


def test_trajectories_that_failed_are_listed_by_reason(
    after: Callable[..., Workspace], stub: Callable[..., StubServer]
) -> None:
    server = stub()
    server.set_faults(
        {**REFUSAL, "match": "It is a quiet day"}, {**REFUSAL, "message": "no such model", "match": "Now!"}
    )
    workspace = after(workers={"endpoints": [server.url]})
    for variant, sample in (("calm", 1), ("nag", 1), ("nag", 2), ("frustration", 1)):
        (workspace.layout.pair(variant, f"gsm8k_000{sample}") / "trajectory.jsonl").unlink()
    try:
        output = workspace.run(ok=False)
    finally:
        end_pool(workspace.config)
    said = output[output.index("What failed, and why:") :]
    assert said.index("2 failed (generate nag/gsm8k_0001, generate nag/gsm8k_0002):") < said.index("no such model")
    assert said.index("1 failed (generate calm/gsm8k_0001):") < said.index("the prompt is too long")
    assert "frustration" not in said
    assert len(workspace.trajectories()) == 16 - 3


def test_a_script_that_failed_is_listed_with_the_end_of_its_log(after: Callable[..., Workspace]) -> None:
    workspace = after()
    (workspace.layout.pair("calm", "gsm8k_0001") / "agent_state.json").write_text("{")
    workspace.layout.table("trajectories").unlink()
    workspace.layout.verified.unlink()
    output = workspace.run("--retries", "0", ok=False)
    said = output[output.index("What failed, and why:") :]
    for rule in ("tabulate_trajectories", "verify"):
        assert f"{rule} failed (results/tiny/logs/{rule}.log):\n" in said
    assert said.count("agent_state.json is damaged") == 2
    assert "Traceback" not in said
    assert "report_experiment" not in said


def test_the_pool_is_told_when_no_request_remains(finished: Workspace) -> None:
    log = (finished.layout.root / "logs/pool.log").read_text()
    told = [line.rpartition("remain: ")[2] for line in log.splitlines() if "kinds of jobs that remain" in line]
    assert told[-1] == "none"
    assert told[:-1] in ([], ["generate"])
