"""Steered generation against the same batch unsteered, and the NNsight server against `generate` of transformers."""

from __future__ import annotations

import asyncio
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from emoprobe.config.files import load_config
from emoprobe.conversations.requests import chat_request
from emoprobe.conversations.samples import draw
from tests.benchmarks.measure import embedded_model, process_cpu, report
from tests.nnsight_server import NNsightServer
from tests.workspace import ROOT

PROMPTS, MAX_TOKENS = 64, 32
ROUNDS = 2
WIDTH, LAYER = 576, 15
# Half of the sequences have one edit at one layer, the others an edit at every layer.
ADD = {"values": [1.0] * WIDTH, "layers": [LAYER], "operation": "add", "dose": 0.1}
ABLATE = {"values": [1.0] * WIDTH, "layers": "all", "operation": "ablate"}


def run(_options: list[str]) -> None:
    """64 prompts of the default config at once, 32 tokens each; SmolLM2 in float32 on this machine's cores.

    Ratios are of the best of the rounds, which take turns; those of CPU time hold on a busy machine, too.
    """
    model = embedded_model()
    config = load_config(ROOT / "config/config.yaml")
    samples = itertools.islice(draw(config.dataset, config.experiment.seed), PROMPTS)
    variants = itertools.cycle(config.variants)
    bodies = [chat_request(config, "tiny", variant, sample) for variant, sample in zip(variants, samples, strict=False)]
    for body in bodies:
        body |= {"max_tokens": MAX_TOKENS, "ignore_eos": True, "temperature": 0}
    steered = [body | {"ndif": {"steering": [(ADD, ABLATE)[number % 2]]}} for number, body in enumerate(bodies)]
    seconds: dict[str, list[tuple[float, float]]] = {"unsteered": [], "steered": [], "generate": []}
    with tempfile.TemporaryDirectory() as folder:
        server = NNsightServer(model, Path(folder) / "activations")
        try:
            torch.set_num_threads(len(os.sched_getaffinity(0)))
            bare: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
            bare.eval().generation_config.eos_token_id = None
            tokenizer = AutoTokenizer.from_pretrained(model)
            warm = asyncio.run(_ask(server.url, [body | {"max_tokens": 1} for body in bodies[:8]]))
            _generate(bare, tokenizer, [answer["prompt_token_ids"] for answer in warm], 1)
            for _ in range(ROUNDS):
                plain = _timed(seconds["unsteered"], server, bodies)
                _timed(seconds["steered"], server, steered)
                prompts = [answer["prompt_token_ids"] for answer in plain]
                began, cpu = time.monotonic(), time.process_time()
                expected = _generate(bare, tokenizer, prompts, MAX_TOKENS)
                seconds["generate"].append((time.monotonic() - began, time.process_time() - cpu))
        finally:
            server.stop()
    same = sum(answer["choices"][0]["token_ids"] == ids for answer, ids in zip(plain, expected, strict=True))
    wall, used = ({name: min(each[kind] for each in found) for name, found in seconds.items()} for kind in (0, 1))
    report(
        "steering", prompts=PROMPTS, prompt_tokens=sum(map(len, prompts)), max_tokens=MAX_TOKENS,
        steered_ratio=wall["unsteered"] / wall["steered"], generate_ratio=wall["generate"] / wall["unsteered"],
        steered_cpu_ratio=used["unsteered"] / used["steered"], generate_cpu_ratio=used["generate"] / used["unsteered"],
        equal_to_generate=same, **{f"{name}_seconds": [each[0] for each in found] for name, found in seconds.items()},
    )  # fmt: skip


def _timed(seconds: list[tuple[float, float]], server: NNsightServer, bodies: list[dict[str, Any]]) -> list[Any]:
    began, cpu = time.monotonic(), process_cpu(server.process.pid)
    answers = asyncio.run(_ask(server.url, bodies))
    seconds.append((time.monotonic() - began, process_cpu(server.process.pid) - cpu))
    return answers


async def _ask(url: str, bodies: list[dict[str, Any]]) -> list[Any]:
    """The answers to requests that are sent at once."""
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=PROMPTS)) as client:
        answers = await asyncio.gather(*(client.post(f"{url}/v1/chat/completions", json=body) for body in bodies))
    assert all(answer.status_code == 200 for answer in answers), answers[0].text
    return [answer.json() for answer in answers]


@torch.inference_mode()
def _generate(bare: Any, tokenizer: Any, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Greedy completions of one batch, padded on the left, decoded as the server does it."""
    longest = max(map(len, prompts))
    ids = torch.tensor([[0] * (longest - len(each)) + each for each in prompts])
    mask = torch.tensor([[0] * (longest - len(each)) + [1] * len(each) for each in prompts])
    found = bare.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=count, pad_token_id=0)
    completions: list[list[int]] = found[:, longest:].tolist()
    tokenizer.batch_decode(completions, skip_special_tokens=True)
    return completions
