"""Capturing through the server against a bare forward pass, and against the obvious way, one request at a time."""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import torch

from tests.benchmarks.measure import embedded_model, process_peak, report
from tests.nnsight_server import NNsightServer

SHORTEST, LONGEST = 150, 450
BATCHES = (1, 2, 4, 8, 16)
ONE_BY_ONE = 24


def run(arguments: list[str]) -> None:
    """All layers, two hook points, five positions, written to disk; SmolLM2 in float32 on this machine's cores."""
    parser = argparse.ArgumentParser(prog="capture")
    parser.add_argument("--sequences", type=int, default=24, help="how many, of 150 to 450 tokens")
    parser.add_argument("--pairs", type=int, default=9, help="measurements of server and bare model, in turns")
    options = parser.parse_args(arguments)
    count: int = options.sequences
    import server.capture  # noqa: F401  # first: it keeps nnsight from patching every object
    import nnsight  # isort: skip

    model = embedded_model()
    generator = random.Random(0)
    sequences = [
        [generator.randrange(5, 49000) for _ in range(generator.randrange(SHORTEST, LONGEST))] for _ in range(count)
    ]
    tokens = sum(map(len, sequences))
    wrapper = nnsight.TransformersModel(str(model), task="text-generation", dtype=torch.float32, dispatch=True)
    base = wrapper._module.base_model
    seconds: list[float] = []
    bare: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        running = NNsightServer(model, Path(folder) / "activations")
        try:
            asyncio.run(_through_server(running.url, sequences[:16], "warm"))
            trials = {size: _bare(base, sequences[:16], size) for size in BATCHES}
            best = min(trials, key=lambda size: trials[size])
            for number in range(options.pairs):
                bare.append(_bare(base, sequences, best))
                seconds.append(asyncio.run(_through_server(running.url, sequences, f"round{number}")))
            peak = process_peak(running.process.pid)
        finally:
            running.stop()
    obvious = _one_by_one(wrapper, sequences[:ONE_BY_ONE])
    rate = tokens / statistics.median(seconds)
    ratios = [plain / served for plain, served in zip(bare, seconds, strict=True)]
    report(
        "capture", sequences=count, tokens=tokens, server_tokens_per_second=rate, bare_batch=best,
        bare_tokens_per_second=tokens / statistics.median(bare), ratio_to_bare=statistics.median(ratios), ratios=ratios,
        one_by_one_tokens_per_second=obvious, ratio_to_one_by_one=rate / obvious, server_peak_gib=peak,
    )  # fmt: skip


async def _through_server(url: str, sequences: list[list[int]], name: str) -> float:
    """Seconds until every folder is on the disk, 64 requests in flight."""
    gate = asyncio.Semaphore(64)
    positions = ["last_prompt", "prefix_mean", "response_first", "response_mean", "response_last"]
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=64)) as client:

        async def one(number: int, ids: list[int]) -> None:
            ndif = {"save_dir": f"{name}/{number}", "positions": positions, "prompt_tokens": len(ids) // 2}
            async with gate:
                answer = await client.post(f"{url}/v1/completions", json={"prompt": ids, "max_tokens": 0, "ndif": ndif})
            assert answer.status_code == 200, answer.text

        started = time.monotonic()
        await asyncio.gather(*(one(number, ids) for number, ids in enumerate(sequences)))
        return time.monotonic() - started


@torch.inference_mode()
def _bare(base: torch.nn.Module, sequences: list[list[int]], size: int) -> float:
    """Seconds of the base model alone, sequences sorted by length, right-padded."""
    ordered = sorted(sequences, key=len)
    started = time.monotonic()
    for begin in range(0, len(ordered), size):
        batch = ordered[begin : begin + size]
        longest = max(map(len, batch))
        ids = torch.tensor([each + [0] * (longest - len(each)) for each in batch])
        mask = torch.tensor([[1] * len(each) + [0] * (longest - len(each)) for each in batch])
        base(input_ids=ids, attention_mask=mask, use_cache=False)
    return time.monotonic() - started


@torch.inference_mode()
def _one_by_one(wrapper: Any, sequences: list[list[int]]) -> float:
    """Tokens per second of a trace with its LM head for each sequence, every tensor saved with torch.save."""
    import nnsight

    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        for number, ids in enumerate(sequences):
            with wrapper.trace({"input_ids": torch.tensor([ids])}):
                taken = []
                for layer in wrapper.model.layers:
                    taken.append(layer.input_layernorm.output)
                    taken.append(layer.post_attention_layernorm.output)
                nnsight.save(taken)
            for place, tensor in enumerate(taken):
                torch.save(tensor.clone(), Path(folder) / f"{number}-{place}.pt")
        return sum(map(len, sequences)) / (time.monotonic() - started)
