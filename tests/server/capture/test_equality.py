"""Captured activations equal those of Hugging Face's own forward pass, over every route to them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.nnsight_server import NNsightServer
from tests.server.capture.tiny_models import ARCHITECTURES, NORMS

TOLERANCE = 1e-5


class Reference:
    """A model with hooks placed by hand."""

    def __init__(self, path: Path, architecture: str) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(path)
        base = self.model.base_model
        layers = base.h if architecture == "gpt2" else base.layers
        first, second, attention = NORMS[architecture]
        self.hook_points = [
            ".input",
            f"{first}.output",
            f"{attention}.output",
            f"{second}.output",
            "mlp.output",
            ".output",
        ]
        self.seen: dict[str, list[torch.Tensor]] = {}
        for layer in layers:
            layer.register_forward_pre_hook(
                lambda _m, args, kwargs: self._keep(".input", args or tuple(kwargs.values())), with_kwargs=True
            )
            for name in (first, attention, second, "mlp"):
                getattr(layer, name).register_forward_hook(
                    lambda _m, _a, out, name=name: self._keep(f"{name}.output", out)
                )
            layer.register_forward_hook(lambda _m, _a, out: self._keep(".output", out))

    def _keep(self, name: str, value: Any) -> None:
        self.seen.setdefault(name, []).append(value[0] if isinstance(value, tuple) else value)

    def __call__(self, ids: list[int]) -> dict[str, torch.Tensor]:
        """Hook point → (n_layers, n_tokens, d)."""
        self.seen = {}
        with torch.inference_mode():
            self.logits = self.model(torch.tensor([ids])).logits[0]
        return {name: torch.stack([value[0] for value in values]) for name, values in self.seen.items()}


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, relative to the largest magnitude of each layer."""
    scale = expected.abs().amax(dim=(1, 2), keepdim=True)
    return float(((found - expected).abs() / scale).max())


def sequences(count: int, seed: int = 0) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(5, 49000) for _ in range(generator.randrange(3, 90))] for _ in range(count)]


def capture(
    server: NNsightServer, ids: list[int], name: str, **ndif: Any
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    body = {"prompt": ids, "max_tokens": 0, "ndif": {"save_dir": f"equality/{name}", "dtype": "float32", **ndif}}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=300)
    assert answer.status_code == 200, answer.text
    folder = Path(answer.json()["ndif"]["save_dir"])
    return load_file(folder / "activations.safetensors"), json.loads((folder / "metadata.json").read_text())


@pytest.fixture(scope="module", params=ARCHITECTURES)
def pair(
    request: pytest.FixtureRequest, nnsight_server: Callable[[str], NNsightServer], tiny: Callable[[str], Path]
) -> tuple[NNsightServer, Reference]:
    return nnsight_server(request.param), Reference(tiny(request.param), request.param)


def test_every_layer_hook_point_and_position_alone(pair: tuple[NNsightServer, Reference]) -> None:
    server, reference = pair
    for number, ids in enumerate(sequences(4)):
        expected = reference(ids)
        found, metadata = capture(server, ids, f"alone/{number}", hook_points=reference.hook_points, positions="all")
        assert metadata["token_ids"] == ids
        assert sorted(found) == sorted(expected)
        for name, tensor in found.items():
            assert tensor.shape == expected[name].shape == (3, len(ids), 48)
            assert relative_error(tensor, expected[name]) <= TOLERANCE, name


def test_every_layer_hook_point_and_position_batched(pair: tuple[NNsightServer, Reference]) -> None:
    server, reference = pair
    batch = sequences(24, seed=1)

    def one(item: tuple[int, list[int]]) -> dict[str, torch.Tensor]:
        return capture(server, item[1], f"batch/{item[0]}", hook_points=reference.hook_points, positions="all")[0]

    with ThreadPoolExecutor(24) as pool:
        results = list(pool.map(one, enumerate(batch)))
    for ids, found in zip(batch, results, strict=True):
        expected = reference(ids)
        for name, tensor in found.items():
            assert relative_error(tensor, expected[name]) <= TOLERANCE, name


def test_named_positions_are_means_and_single_tokens(pair: tuple[NNsightServer, Reference]) -> None:
    server, reference = pair
    messages = [
        {"role": "system", "content": "You solve problems."},
        {"role": "user", "content": "Hurry up now!\n\nWhat is 2 + 3?"},
    ]
    text = reference.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt = reference.tokenizer(text, add_special_tokens=False)["input_ids"]
    completion = [100, 200, 300, 2]
    positions: list[Any] = ["last_prompt", "prefix_mean", "response_first", "response_mean", "response_last", 0, -2]
    found, metadata = capture(
        server,
        prompt + completion,
        "named",
        hook_points=reference.hook_points[1:2],
        positions=positions,
        layers=[-1, 0],
        messages=messages,
        message_spans={"prefix": [1, 0, 13], "question": [1, 15, 29], "system": [0, 0, 19]},
        prompt_tokens=len(prompt),
    )
    start, end = metadata["spans"]["prefix"]
    assert str(reference.tokenizer.decode(prompt[start:end])).strip() == "Hurry up now!"
    start, end = metadata["spans"]["question"]
    assert str(reference.tokenizer.decode(prompt[start:end])).strip() == "What is 2 + 3?"
    (name, tensor), (_, full) = (
        next(iter(found.items())),
        next(iter({k: v for k, v in reference(prompt + completion).items() if k in found}.items())),
    )
    full = full[[0, 2]]
    length = len(prompt)
    begin, stop = metadata["spans"]["prefix"]
    expected = torch.stack(
        [
            full[:, length - 1],
            full[:, begin:stop].mean(1),
            full[:, length],
            full[:, length:].mean(1),
            full[:, -1],
            full[:, 0],
            full[:, -2],
        ],
        dim=1,
    )
    assert metadata["layers"] == [0, 2]
    assert relative_error(tensor, expected) <= TOLERANCE, name
    spans = {part: metadata["spans"][part] for part in ("system", "prefix", "question")}
    given, as_told = capture(
        server,
        prompt + completion,
        "named-by-tokens",
        hook_points=reference.hook_points[1:2],
        positions=positions,
        layers=[-1, 0],
        token_spans=spans,
        prompt_tokens=length,
    )
    assert as_told["spans"] == metadata["spans"]
    assert as_told["positions"] == metadata["positions"]
    assert torch.equal(given[name], tensor)


def test_empty_parts_have_a_neighbour_instead(pair: tuple[NNsightServer, Reference]) -> None:
    server, reference = pair
    ids = sequences(1, seed=3)[0]
    positions = ["last_prompt", "prefix_mean", "response_mean", "response_last"]
    found, metadata = capture(server, ids, "empty", hook_points=reference.hook_points[1:2], positions=positions)
    (tensor,) = found.values()
    assert [position["empty"] for position in metadata["positions"]] == [False, True, True, True]
    assert torch.equal(tensor[:, 2], tensor[:, 0])
    assert torch.equal(tensor[:, 3], tensor[:, 0])
    assert torch.isfinite(tensor).all()


def test_replay_equals_inline(pair: tuple[NNsightServer, Reference]) -> None:
    server, reference = pair
    messages = [{"role": "user", "content": "Tell me about the number seven."}]
    wanted = {
        "dtype": "float32",
        "hook_points": reference.hook_points,
        "positions": ["last_prompt", "response_first", "response_mean", "response_last"],
    }
    body = {
        "messages": messages,
        "max_tokens": 12,
        "temperature": 0,
        "return_token_ids": True,
        "ndif": {**wanted, "save_dir": "equality/inline"},
    }
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=300).json()
    inline = load_file(Path(answer["ndif"]["save_dir"]) / "activations.safetensors")
    prompt, completion = answer["prompt_token_ids"], answer["choices"][0]["token_ids"]
    replayed, metadata = capture(server, prompt + completion, "replayed", **{**wanted, "prompt_tokens": len(prompt)})
    assert metadata["token_ids"] == prompt + completion
    for name, tensor in replayed.items():
        assert relative_error(tensor, inline[name]) <= TOLERANCE


def test_prompt_scores_are_the_references(pair: tuple[NNsightServer, Reference]) -> None:
    server, reference = pair
    ids = sequences(1, seed=5)[0]
    body = {"prompt": ids, "max_tokens": 0, "echo": True, "logprobs": 2}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, timeout=300).json()
    found = answer["choices"][0]["logprobs"]
    reference(ids)
    logs = torch.log_softmax(reference.logits, dim=-1)
    expected = [float(logs[index, token]) for index, token in enumerate(ids[1:])]
    assert found["token_logprobs"][0] is None
    assert torch.allclose(torch.tensor(found["token_logprobs"][1:]), torch.tensor(expected), atol=1e-4)
    best = float(logs[0].max())
    assert abs(max(found["top_logprobs"][1].values()) - best) < 1e-4


def test_greedy_generation_is_the_references(pair: tuple[NNsightServer, Reference]) -> None:
    server, reference = pair
    batch = sequences(6, seed=7)
    body = {"prompt": batch, "max_tokens": 10, "temperature": 0, "return_token_ids": True, "ignore_eos": True}
    choices = httpx.post(f"{server.url}/v1/completions", json=body, timeout=300).json()["choices"]
    for ids, choice in zip(batch, choices, strict=True):
        expected = reference.model.generate(
            torch.tensor([ids]), max_new_tokens=10, do_sample=False, min_new_tokens=10, pad_token_id=2
        )[0, len(ids) :].tolist()
        if 2 not in expected:
            assert choice["token_ids"] == expected
