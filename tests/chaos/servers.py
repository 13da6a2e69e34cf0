"""Real servers that die, hang, start late, or cannot start."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import time
from functools import partial
from typing import Any

from tests.benchmarks.measure import embedded_model
from tests.chaos.scene import Fault, Scene, nnsight, nnsight_trajectories
from tests.conftest import PATIENCE
from tests.workspace import wait_for

# Long enough that a start without it would have been over.
SLOW_SECONDS = 5


def end_in_mid_run(scene: Scene, name: str, number: signal.Signals) -> str:
    """Send a signal to one of two servers as soon as both are at work, and let the run go on."""
    # Both stand before it: where one starts late, the other has answered everything by then.
    scene.workers["keep_alive"] = PATIENCE
    made = scene.workspace.layout.pair("calm", "gsm8k_0001") / "trajectory.jsonl"
    scene.workspace.run(str(made.relative_to(scene.folder)))
    wait_for(lambda: scene.worker(name).get("state") == "live", PATIENCE, f"a start of {name}")
    process = scene.start()
    scene.wait_for(process, lambda: scene.worker(name).get("in_flight", 0) > 0, f"requests at {name}")
    server = scene.server_process(name)
    assert server is not None
    os.kill(server, number)
    scene.finish(process)
    assert scene.failures() >= 1
    return f"complete, {scene.failures()} failed attempts"


def killed(scene: Scene) -> str:
    return end_in_mid_run(scene, "nnsight-1", signal.SIGKILL)


def stopped(scene: Scene) -> str:
    return end_in_mid_run(scene, "nnsight-1", signal.SIGSTOP)


def vllm_killed(scene: Scene) -> str:
    """Half of the trajectories are made once more afterwards, which shows that the fault has changed none."""
    happened = end_in_mid_run(scene, "vllm-1", signal.SIGKILL)
    made = scene.workspace.trajectories()
    for path in list(made)[::2]:
        (scene.workspace.layout.root / path).unlink()
    scene.run()
    assert scene.workspace.trajectories() == made
    return f"{happened}; half of them made again, all the same"


def killed_at_start(scene: Scene) -> str:
    """What the kernel does to a server for which there is no memory."""
    process = scene.start()
    os.kill(scene.wait_for_process("nnsight-0"), signal.SIGKILL)
    scene.wait_for(process, lambda: scene.worker("nnsight-0").get("restarts") == 1, "a restart")
    scene.finish(process)
    return "restarted once, complete"


def always_killed_at_start(scene: Scene) -> str:
    process = scene.start()
    killed: set[int] = set()
    while process.poll() is None:
        number = scene.server_process("nnsight-0")
        if number is not None and number not in killed:
            killed.add(number)
            os.kill(number, signal.SIGKILL)
        time.sleep(0.05)
    assert process.returncode == 1
    assert len(killed) == 3, killed  # the first start, and workers.restarts
    output = scene.printed()
    assert "No model server is left" in output
    assert "SIGKILL" in output
    scene.run()
    return f"one clear error after {len(killed)} starts; complete afterwards"


def broken_model(scene: Scene) -> str:
    model = scene.folder / "model"
    shutil.copytree(scene.workspace.config["model"]["source"], model)
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    scene.workspace.config["model"]["source"] = str(model)
    output = scene.run(ok=False)
    assert scene.workspace.trajectories() == {}
    assert "model.safetensors is damaged" in output, output[-3000:]
    assert scene.server_process("nnsight-0") is None
    (model / "model.safetensors").write_bytes(whole)
    scene.run()
    return "one clear error; complete with the whole file"


def port_taken(scene: Scene) -> str:
    """One port is taken from the beginning, the next one after the pool has chosen it."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        first.listen()
        scene.workers["port"] = first.getsockname()[1]
        process = scene.start()
        scene.wait_for_process("nnsight-0")
        chosen = int(scene.worker("nnsight-0")["url"].rpartition(":")[2])
        assert chosen != first.getsockname()[1]
        second.bind(("127.0.0.1", chosen))
        second.listen()
        scene.wait_for(process, lambda: scene.worker("nnsight-0").get("restarts") == 1, "a restart")
        scene.finish(process)
    return "the next port, restarted when that was taken as well, complete"


def seconds_of_start(worker: dict[str, Any]) -> int:
    """For how long a server has been starting, as the pool says; 0 where it does not start."""
    found = re.match(r"starting for (\d+) s", worker.get("phase", ""))
    return int(found[1]) if found else 0


def slow_start(scene: Scene) -> str:
    process = scene.start()
    server = scene.wait_for_process("nnsight-0")
    os.kill(server, signal.SIGSTOP)
    scene.wait_for(process, lambda: seconds_of_start(scene.worker("nnsight-0")) > SLOW_SECONDS, "a slow start")
    assert process.poll() is None
    os.kill(server, signal.SIGCONT)
    scene.finish(process)
    assert scene.failures() == 0
    return "waited, complete"


def vllm() -> Scene:
    """Trajectories from two real vLLM servers."""
    sections = {
        "model": {"source": str(embedded_model())},
        "generation": {"max_tokens": 24, "engine": {"max_model_len": 1024}},
        "workers": {"count": 2, "requests": 1, "keep_alive": 60.0, "kv_cache_gib": 1},
        "capture": {"enabled": False},
    }
    return Scene(sections, ("--until", "generate"))


def real(expected: str, inject: object, count: int = 1, **workers: float) -> Fault:
    """A fault of real NNsight servers."""
    return Fault(expected, inject, partial(nnsight, count, **workers), nnsight_trajectories)  # type: ignore[arg-type]


ELSEWHERE = "the other server answers; the failed attempts are in tables/workers.parquet; the server is restarted"
FAULTS = {
    "nnsight_sigkill": real(ELSEWHERE, killed, 2),
    "nnsight_sigstop": real(ELSEWHERE, stopped, 2, hang_timeout=10.0),
    "server_killed_at_start": real("restarted", killed_at_start),
    "server_always_killed_at_start": real("one clear error after workers.restarts", always_killed_at_start),
    "broken_model": real("one clear error before a server is started", broken_model),
    "port_taken": real("another port; a restart where it is lost meanwhile", port_taken),
    "slow_start": real("the run waits, up to workers.start_timeout", slow_start),
    "vllm_sigkill": Fault(ELSEWHERE, vllm_killed, vllm, None),
}
