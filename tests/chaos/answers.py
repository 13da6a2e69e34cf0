"""Servers that answer badly, slowly, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from tests.chaos.scene import PAIRS, Fault, Scene, stubs
from tests.stub_server import TOKENIZER, tokenizer

# Slow enough, and few enough at once, that both servers have requests in flight.
busy = partial(stubs, delay=0.3, requests=2)
ELSEWHERE = "the next server answers; the failed attempts are in tables/workers.parquet"


def answer(kind: str, times: int = 2, scene: Callable[[], Scene] = busy, **details: Any) -> Fault:
    """One of two servers answers badly a few times."""

    def inject(scene: Scene) -> str:
        scene.set_faults({"kind": kind, "times": times, **details})
        scene.run()
        failures = scene.failures()
        assert failures >= 1
        if details.get("status") == 500:
            assert scene.failures_in_table() == failures
        return f"complete, {failures} failed attempts"

    return Fault(ELSEWHERE, inject, scene)


def slow(scene: Scene) -> str:
    scene.set_faults({"kind": "slow", "seconds": 2.0, "times": 2})
    scene.run()
    assert scene.failures() == 0
    return "complete, waited"


def decode(prompt: list[int]) -> str:
    return str(tokenizer(TOKENIZER).decode(prompt, skip_special_tokens=False))


def refused(scene: Scene) -> str:
    for server in (0, 1):
        scene.set_faults(
            {"kind": "status", "status": 400, "message": "too long", "match": "It is a quiet day", "times": 99},
            server=server,
        )
    output = scene.run(ok=False)
    made = scene.workspace.trajectories()
    assert len(made) == PAIRS - 2, sorted(made)
    assert "What failed, and why" in output
    assert "too long" in output
    asked = [decode(request["prompt"]) for server in scene.servers for request in server.requests()]
    assert sum("It is a quiet day" in prompt for prompt in asked) == 2
    log = scene.workspace.layout.log("generate", "calm", "gsm8k_0001").read_text()
    assert "too long" in log
    assert "What to do" in log
    for server in (0, 1):
        scene.set_faults(server=server)
    scene.run()
    return "failed alone, asked once each, the rest went on; complete after the cause was gone"


def always_failing(scene: Scene) -> str:
    for server in (0, 1):
        scene.set_faults({"kind": "status", "status": 500, "match": "It is a quiet day", "times": 99}, server=server)
    output = scene.run(ok=False)
    assert len(scene.workspace.trajectories()) == PAIRS - 2
    assert "all 3 attempts failed" in output
    log = scene.workspace.layout.log("generate", "calm", "gsm8k_0001").read_text()
    assert log.count("endpoint-") >= 3
    assert "What to do" in log
    for server in (0, 1):
        scene.set_faults(server=server)
    scene.run()
    return "given up after three attempts, which its log lists; complete after the cause was gone"


def told_at_once(change: dict[str, Any], words: str) -> Callable[[Scene], str]:
    """No server can be used: one error, as soon as that shows, and nothing is asked of a server."""

    def inject(scene: Scene) -> str:
        before = scene.workers
        scene.workspace.config["workers"] = {**before, "start_timeout": 4.0, **change}
        output = scene.run(ok=False)
        assert words in output
        assert output.count("No model server is left") <= 3, output
        assert not [request for server in scene.servers for request in server.requests()]
        scene.workspace.config["workers"] = before
        scene.run()
        return "one clear error, nothing asked of a server; complete afterwards"

    return inject


FAULTS = {
    "status_500": answer("status", 3, status=500),
    "status_429": answer("status", status=429, headers={"Retry-After": "1"}),
    "truncated_json": answer("truncated"),
    "reset_in_mid_answer": answer("reset"),
    "empty_completion": answer("empty"),
    "nonsense": answer("nonsense"),
    "no_answer": answer("hang", 1, partial(stubs, delay=0.3, requests=2, timeout=5.0)),
    "slow": Fault("the run waits", slow),
    "refused_400": Fault("that trajectory fails alone and is not tried again; the rest goes on", refused),
    "always_failing": Fault("given up after workers.attempts; the rest goes on", always_failing),
    "wrong_model_name": Fault(
        "one clear error, nothing is asked", told_at_once({"model_name": "other"}, "serves stub, not other")
    ),
    "nobody_answers": Fault(
        "one clear error, nothing is asked",
        told_at_once({"endpoints": ["http://127.0.0.1:9"]}, "No model server is left"),
    ),
}
