"""What surrounds a trajectory: 1,024 of them, 128 in flight, at a server that answers after 2 s."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.benchmarks.measure import embedded_model, questions, report, timed_run
from tests.conftest import StubServer
from tests.workflow.pool import end_pool
from tests.workspace import Workspace

DELAY, SAMPLES, IN_FLIGHT = 2.0, 256, 128


def run() -> None:
    """Four variants on 256 samples; the ideal is 8 rounds of 2 s."""
    server = StubServer(DELAY)
    with tempfile.TemporaryDirectory() as folder:
        texts = {name: {"text": f"This is {name}."} for name in ("first", "second", "third")}
        config = {
            "experiment": {"name": "stub"},
            "model": {"source": str(embedded_model())},
            "dataset": questions(SAMPLES),
            "variants": {"control": {}, **texts},
            "workers": {"endpoints": [server.url], "model_name": "stub", "requests": IN_FLIGHT, "keep_alive": 120.0},
            "capture": {"enabled": False},
        }
        workspace = Workspace(Path(folder), config)
        workspace.run("--until", "prepare_model", "prepare_sample")
        try:
            # Warm: the pool runs, as it does for all but the first moments of an experiment.
            workspace.run("results/stub/control/gsm8k_0001/trajectory.jsonl")
            (workspace.layout.pair("control", "gsm8k_0001") / "trajectory.jsonl").unlink()
            with timed_run(workspace, "--until", "generate", "--cores", str(IN_FLIGHT)) as found:
                count = len(workspace.trajectories())
        finally:
            end_pool(config)
            server.stop()
    ideal = DELAY * count / IN_FLIGHT
    report(
        "stub_server",
        trajectories=count,
        in_flight=IN_FLIGHT,
        seconds=found["wall"],
        ideal_seconds=ideal,
        slots_filled=ideal / found["wall"],
        cpu_ms_per_trajectory=1000 * found["cpu"] / count,
        cpu_ms_of_the_pool=1000 * found["cpu_pool"] / count,
    )
