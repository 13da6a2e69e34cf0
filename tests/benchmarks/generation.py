"""Generation through the whole workflow against a bare client at the same server, and the server against offline vLLM."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from emoprobe.config.files import parse_config
from emoprobe.conversations.requests import chat_request
from emoprobe.conversations.samples import draw
from emoprobe.models.resolved import with_placement, with_values
from server.pool.launch import command, environment, free_port, shares
from tests.benchmarks.measure import embedded_model, questions, report, timed_run
from tests.workflow.pool import end_pool
from tests.workspace import ROOT, Workspace, wait_for

MAX_TOKENS, IN_FLIGHT = 100, 64
KEY = "benchmark"
ROUNDS = 2


def run(arguments: list[str]) -> None:
    """Trajectories of at most 100 tokens with the server up, the bare client before and after."""
    parser = argparse.ArgumentParser(prog="generation")
    parser.add_argument("--samples", type=int, default=256, help="trajectories")
    samples: int = parser.parse_args(arguments).samples
    model = embedded_model()
    port = free_port(0)
    values: dict[str, Any] = {
        "experiment": {"name": "bench"},
        "model": {"source": str(model)},
        "dataset": questions(samples),
        "variants": {"control": {}},
        "generation": {"max_tokens": MAX_TOKENS},
        "workers": {
            "endpoints": [f"http://127.0.0.1:{port}"],
            "api_key_env": "EMOPROBE_BENCH_KEY",
            "keep_alive": 300.0,
        },
        "capture": {"enabled": False},
    }
    os.environ["EMOPROBE_BENCH_KEY"] = KEY
    config = parse_config(values)
    share = shares(1, 1)[0]
    config = with_placement(with_values(config, {"model.dtype": "float32", "engine.max_model_len": 4096}), model)
    line = command("vllm", config, str(model), str(model), share, port, ROOT)
    with open(os.devnull, "wb") as sink:
        server = subprocess.Popen(line, env=environment(config, share, KEY), stdout=sink, stderr=sink)
    try:
        wait_for(lambda: _up(port), 300, "the vLLM server")
        bodies = [chat_request(config, str(model), "control", sample) for sample in draw(config.dataset, 42)]
        asyncio.run(_bare(port, bodies[:IN_FLIGHT]))  # warm
        bare: list[float] = []
        whole: list[dict[str, float]] = []
        for _ in range(ROUNDS):
            seconds, tokens = asyncio.run(_bare(port, bodies))
            bare.append(seconds)
            whole.append(_workflow(values, samples))
        seconds, tokens = asyncio.run(_bare(port, bodies))
        bare.append(seconds)
    finally:
        server.terminate()
        server.wait(60)
    best, middle = min(bare), sorted(bare)[len(bare) // 2]
    wall = sum(found["wall"] for found in whole) / len(whole)
    report(
        "generation_workflow_vs_bare_client", trajectories=samples, tokens=tokens, bare_seconds=bare,
        workflow_seconds=[found["wall"] for found in whole], ratio=middle / wall, ratio_to_best_bare=best / wall,
        cpu_ms_per_trajectory=1000 * sum(found["cpu"] for found in whole) / len(whole) / samples,
    )  # fmt: skip
    offline = _offline(model, bodies, environment(config, share, KEY))
    report(
        "generation_server_vs_offline_vllm", tokens=tokens, server_tokens_per_second=tokens / middle,
        offline_tokens_per_second=offline, ratio=tokens / middle / offline,
    )  # fmt: skip


def _up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


async def _bare(port: int, bodies: list[dict[str, Any]]) -> tuple[float, int]:
    """Seconds and tokens of a client that does nothing but ask."""
    limits = httpx.Limits(max_connections=IN_FLIGHT)
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(limits=limits, timeout=600, headers=headers) as client:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        started = time.monotonic()
        answers = await asyncio.gather(*(client.post(url, json=body) for body in bodies))
        seconds = time.monotonic() - started
    return seconds, sum(answer.json()["usage"]["completion_tokens"] for answer in answers)


def _workflow(values: dict[str, Any], samples: int) -> dict[str, float]:
    """The same through snakemake; the samples are drawn before the clock starts."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder), values)
        workspace.run("--until", "prepare_model", "prepare_sample")
        try:
            workspace.run("results/bench/control/gsm8k_0001/trajectory.jsonl")
            (workspace.layout.pair("control", "gsm8k_0001") / "trajectory.jsonl").unlink()
            with timed_run(workspace, "--until", "generate") as found:
                assert len(workspace.trajectories()) == samples
            return found
        finally:
            end_pool(values)


OFFLINE = """
import json, sys, time
from vllm import LLM, SamplingParams
model, count, path = sys.argv[1], int(sys.argv[2]), sys.argv[3]
llm = LLM(model, dtype="float32", enforce_eager=True, max_model_len=4096, max_num_seqs=64, seed=42,
          enable_chunked_prefill=False, max_num_batched_tokens=4096, gpu_memory_utilization=0.1, generation_config="vllm")
messages = json.load(open(path))
options = SamplingParams(max_tokens=count, temperature=0.0)
llm.chat(messages[:64], options, use_tqdm=False)
started = time.monotonic()
answers = llm.chat(messages, options, use_tqdm=False)
seconds = time.monotonic() - started
print("RATE", sum(len(answer.outputs[0].token_ids) for answer in answers) / seconds)
"""


def _offline(model: Path, bodies: list[dict[str, Any]], env: dict[str, str]) -> float:
    """Tokens per second of vLLM without a server, on the same prompts and cores."""
    with tempfile.TemporaryDirectory() as folder:
        path, program = Path(folder) / "messages.json", Path(folder) / "offline.py"
        path.write_text(json.dumps([body["messages"] for body in bodies]))
        program.write_text(f"if __name__ == '__main__':\n    exec({OFFLINE!r})\n")
        env = {name: value for name, value in env.items() if name != "EMOPROBE_PARENT"}
        done = subprocess.run(
            [sys.executable, str(program), str(model), str(MAX_TOKENS), str(path)],
            env=env, capture_output=True, text=True, timeout=580,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        return float(next(line for line in done.stdout.splitlines() if line.startswith("RATE")).split()[1])
