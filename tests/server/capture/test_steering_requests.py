"""Steered requests over HTTP equal hooks placed by hand on Hugging Face's model, alone and among others."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from tests.conftest import PATIENCE
from tests.nnsight_server import NNsightServer
from tests.server.capture import steering_by_hand
from tests.server.capture.steering_by_hand import Edit
from tests.server.capture.tiny_models import ARCHITECTURES

WIDTH, LAYERS = 48, 3


def values(seed: int) -> list[float]:
    generator = random.Random(seed)
    return [generator.gauss(0, 1) for _ in range(WIDTH)]


ADD: Edit = {"values": values(1), "layers": [1], "operation": "add", "dose": 2.0}
ABLATE: Edit = {"values": values(2), "layers": "all", "operation": "ablate"}
EDITS: list[list[Edit]] = [
    [ADD], [], [ABLATE], [ADD | {"phase": "prompt"}], [ADD | {"phase": "generation"}], [ABLATE | {"phase": "prompt"}],
    [ABLATE | {"phase": "generation"}], [ADD | {"layers": [0, 2], "dose": -1.0}, ABLATE, ADD | {"phase": "generation"}],
]  # fmt: skip


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    generator = random.Random(seed)
    return [[generator.randrange(5, 49000) for _ in range(generator.randrange(2, 60))] for _ in range(count)]


def body(ids: list[int], edits: list[Edit] | None, count: int = 6, ndif: Any = None, **more: Any) -> dict[str, Any]:
    """A request; `edits` None stands for one that says nothing of steering."""
    found = {"prompt": ids, "max_tokens": count, "temperature": 0, "return_token_ids": True, "ignore_eos": True, **more}
    if edits is not None:
        found["ndif"] = {"steering": edits, **(ndif or {})}
    elif ndif is not None:
        found["ndif"] = ndif
    return found


def ask(server: NNsightServer, *bodies: dict[str, Any]) -> list[Any]:
    """The answers to requests that are sent at once."""

    async def run() -> list[Any]:
        async with httpx.AsyncClient(timeout=PATIENCE) as client:
            found = await asyncio.gather(*(client.post(f"{server.url}/v1/completions", json=each) for each in bodies))
        assert [answer.status_code for answer in found] == [200] * len(bodies), found[0].text
        return [answer.json() for answer in found]

    return asyncio.run(run())


def tokens(answer: Any) -> list[int]:
    found: list[int] = answer["choices"][0]["token_ids"]
    return found


def logprobs(answer: Any) -> list[float]:
    return [value for value in answer["choices"][0]["logprobs"]["token_logprobs"] if value is not None]


@pytest.fixture(scope="module")
def server(nnsight_server: Callable[[str], NNsightServer]) -> NNsightServer:
    return nnsight_server("llama")


@pytest.fixture(scope="module")
def reference(server: NNsightServer) -> Any:
    return load(server)


def load(server: NNsightServer) -> Any:
    model: Any = AutoModelForCausalLM.from_pretrained(server.model, dtype=torch.float32)
    return model.eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_steered_answers_equal_hooks_placed_by_hand(
    nnsight_server: Callable[[str], NNsightServer], architecture: str
) -> None:
    server = nnsight_server(architecture)
    model = load(server)
    batch = prompts(len(EDITS))
    answers = ask(server, *(body(ids, edits) for ids, edits in zip(batch, EDITS, strict=True)))
    for ids, edits, answer in zip(batch, EDITS, answers, strict=True):
        assert tokens(answer) == steering_by_hand.without_cache(model, ids, edits, 6)
        assert tokens(answer) == steering_by_hand.generated(model, ids, edits, 6)
    plain = [steering_by_hand.without_cache(model, ids, [], 6) for ids in batch]
    assert sum(tokens(answer) != other for answer, other in zip(answers, plain, strict=True)) >= len(EDITS) // 2


def test_a_mixed_batch_equals_single_requests(server: NNsightServer) -> None:
    """Sequences of other lengths, with other edits, that end earlier: neither they nor their padding change any."""
    bodies = [
        body(ids, EDITS[number % len(EDITS)], 1 + number % 7, logprobs=0) for number, ids in enumerate(prompts(24, 1))
    ]
    bodies.append(body([7] * 700, [ABLATE], 3, logprobs=0))
    for together, alone in zip(ask(server, *bodies), (ask(server, each)[0] for each in bodies), strict=True):
        assert tokens(together) == tokens(alone)
        assert logprobs(together) == pytest.approx(logprobs(alone), abs=1e-4)
        assert together["ndif"]["steering"] == alone["ndif"]["steering"]


@pytest.mark.parametrize("phase", ["prompt", "generation", "all"])
def test_a_dose_of_nothing_is_no_edit_bit_by_bit(server: NNsightServer, phase: str) -> None:
    nothing = ADD | {"layers": "all", "dose": 0.0, "phase": phase}
    capture = {"positions": "all", "hook_points": ["resid_post", "mlp.output"], "dtype": "float32"}
    ids = prompts(1, 2)[0]
    found = []
    for name, edits in (("nothing", [nothing]), ("none", [])):
        (answer,) = ask(server, body(ids, edits, ndif={**capture, "save_dir": f"dose-{phase}-{name}"}, logprobs=3))
        scored = {"prompt_tokens": 2}
        (text,) = ask(server, body(ids, edits, 0, ndif=scored, echo=True, logprobs=3))
        found.append((answer["choices"], answer["ndif"]["sha256"], text["choices"]))
    assert found[0] == found[1]


def test_edited_tokens_are_counted_until_a_sequence_ends(server: NNsightServer) -> None:
    batch = prompts(len(EDITS), 3)
    whole = ask(server, *(body(ids, edits, 12) for ids, edits in zip(batch, EDITS, strict=True)))
    stops = [answer["choices"][0]["text"][6:9] if number % 2 else [] for number, answer in enumerate(whole)]
    bodies = [body(ids, edits, 12, stop=stop) for ids, edits, stop in zip(batch, EDITS, stops, strict=True)]
    answers = ask(server, *bodies)
    assert {answer["choices"][0]["finish_reason"] for answer in answers} == {"stop", "length"}
    for answer, edits, ids in zip(answers, EDITS, batch, strict=True):
        # The last token never enters the model, so it is not edited.
        entered = answer["usage"]["completion_tokens"] - 1
        expected = {"prompt": len(ids), "generation": entered, "all": len(ids) + entered}
        assert [entry["tokens"] for entry in answer["ndif"]["steering"]] == [
            [expected[edit.get("phase", "all")]] for edit in edits
        ]


def test_a_steered_text_is_captured_and_scored_as_it_was_generated(server: NNsightServer, reference: Any) -> None:
    capture = {"positions": "all", "hook_points": ["resid_post"], "dtype": "float32"}
    for number, (ids, edits) in enumerate(zip(prompts(len(EDITS), 4), EDITS, strict=True)):
        (answer,) = ask(server, body(ids, edits, 5, ndif={**capture, "save_dir": f"steered/{number}"}, logprobs=0))
        full = ids + tokens(answer)
        expected = steering_by_hand.streams(reference, full, edits, len(ids))
        stored = load_file(Path(answer["ndif"]["save_dir"]) / "activations.safetensors")["resid_post"]
        assert float((stored - expected).abs().max() / expected.abs().max()) <= 1e-5
        (text,) = ask(server, body(full, edits, 0, ndif={"prompt_tokens": len(ids)}, echo=True, logprobs=0))
        assert logprobs(text)[len(ids) - 1 :] == pytest.approx(logprobs(answer), abs=1e-4)


def test_scores_and_divergences_equal_hooks_placed_by_hand(server: NNsightServer, reference: Any) -> None:
    """The boundary between prompt and text is where `prompt_tokens` says."""
    for ids, edits in zip(prompts(len(EDITS), 5), EDITS, strict=True):
        ids = ids + [7, 8, 9]
        prompt = len(ids) - 3
        under, without = (
            steering_by_hand.logits(reference, ids, each, prompt).double().log_softmax(-1) for each in (edits, [])
        )
        ndif: dict[str, Any] = {"prompt_tokens": prompt} | ({"kl": 2} if edits else {})
        (answer,) = ask(server, body(ids, edits, 0, ndif=ndif, echo=True, logprobs=0))
        gold = [float(under[place, token]) for place, token in enumerate(ids[1:])]
        assert logprobs(answer) == pytest.approx(gold, abs=1e-4)
        counts = {"prompt": prompt, "generation": 3, "all": prompt + 3}
        assert [entry["tokens"] for entry in answer["ndif"]["steering"]] == [
            [counts[edit.get("phase", "all")]] for edit in edits
        ]
        if edits:
            expected = (under.exp() * (under - without)).sum(-1)[prompt - 1 : prompt + 1]
            assert answer["ndif"]["kl"] == pytest.approx(expected.tolist(), abs=1e-4)
        assert set(answer["ndif"]) == {"request_id", "steering", *({"kl"} & ndif.keys())}


def test_divergences_are_told_of_no_more_tokens_than_there_are(server: NNsightServer) -> None:
    settings: dict[str, Any] = {"echo": True, "logprobs": 0}
    found = [
        ask(server, body([5, 6, 7, 8], [ADD], 0, ndif={"prompt_tokens": count, "kl": 9}, **settings))[0]
        for count in (1, 3, 4)
    ]
    assert [len(answer["ndif"]["kl"]) for answer in found] == [3, 1, 0]
    (still,) = ask(server, body([5, 6, 7], [ADD | {"dose": 0.0}], 0, ndif={"prompt_tokens": 1, "kl": 2}, **settings))
    assert still["ndif"]["kl"] == [0.0, 0.0]


def test_choices_prompts_chats_and_streams_are_steered(server: NNsightServer) -> None:
    batch = prompts(2, 6)
    alone = [tokens(ask(server, body(ids, [ADD]))[0]) for ids in batch]
    (both,) = ask(server, body(batch, [ADD], n=2))  # type: ignore[arg-type]
    assert [choice["token_ids"] for choice in both["choices"]] == [alone[0], alone[0], alone[1], alone[1]]
    assert both["ndif"]["steering"][0]["tokens"] == [len(ids) + 5 for ids in batch for _ in range(2)]
    chat = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 6, "temperature": 0, "ignore_eos": True}
    chat |= {"return_token_ids": True, "ndif": {"steering": [ADD]}}
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=chat, timeout=PATIENCE).json()
    assert tokens(answer) == tokens(ask(server, body(answer["prompt_token_ids"], [ADD]))[0])
    streamed = httpx.post(f"{server.url}/v1/completions", json=body(batch[0], [ADD], stream=True), timeout=PATIENCE)
    assert f'"tokens": [{len(batch[0]) + 5}]' in streamed.text


def test_the_answer_tells_what_was_applied(server: NNsightServer) -> None:
    server.root.mkdir(parents=True, exist_ok=True)
    path = server.root / "exp/steering/directions/joy.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    vectors = torch.tensor([values(seed) for seed in range(LAYERS)])
    lengths = torch.tensor([2.0, 3.0, 4.0])
    save_file({"direction": vectors, "direction.norm": lengths}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit: Edit = {
        "file": "exp/steering/directions/joy.safetensors",
        "key": "direction",
        "sha256": digest,
        "layers": [1, -1],
    }
    edit |= {"operation": "add", "dose": 4.0, "phase": "generation"}
    ids = prompts(1, 7)[0]
    (answer,) = ask(server, body(ids, [edit], ndif={"request_id": "me"}))
    assert answer["ndif"] == {"request_id": "me", "steering": [{**edit, "tokens": [5]}]}
    by_values = [
        edit_of(vectors[layer] / vectors[layer].norm() * lengths[layer], layer, edit) for layer in (1, LAYERS - 1)
    ]
    assert tokens(answer) == tokens(ask(server, body(ids, by_values))[0])
    (nothing,) = ask(server, body(ids, [], ndif={"request_id": "me"}))
    assert nothing["ndif"] == {"request_id": "me", "steering": []}
    assert tokens(nothing) == tokens(ask(server, body(ids, None))[0])


def edit_of(vector: torch.Tensor, layer: int, like: Edit) -> Edit:
    return {"values": vector.tolist(), "layers": [layer], **{key: like[key] for key in ("operation", "dose", "phase")}}


SCORED: dict[str, Any] = {"max_tokens": 0, "echo": True, "logprobs": 0}


@pytest.mark.parametrize(
    ("change", "ndif", "more", "words"),
    [
        ({"strength": 2}, {}, {}, "strength"), ({"layers": [9]}, {}, {}, "9 does not exist"), ({"layers": []}, {}, {}, "layers"),
        ({"values": [1.0] * 7}, {}, {}, "7 values"), ({"values": [0.0] * WIDTH}, {}, {}, "zero, or not finite"),
        ({"values": [3e38] * WIDTH}, {}, {}, "zero, or not finite"), ({"values": ["NaN"] * WIDTH}, {}, {}, "values"),
        ({"dose": 1e300}, {}, {}, "out of range"), ({"dose": "Infinity"}, {}, {}, "dose"), ({"operation": "ablate", "dose": 2.0}, {}, {}, "dose is 1"),
        ({"operation": "multiply"}, {}, {}, "operation"), ({"phase": "later"}, {}, {}, "phase"),
        ({"values": None}, {}, {}, "either file or values"), ({"file": "d.safetensors", "key": "joy"}, {}, {}, "either file or values"),
        ({"values": None, "file": "d.safetensors"}, {}, {}, "a file needs a key"),
        ({"values": None, "file": "../outside.safetensors", "key": "joy"}, {}, {}, "below the server's root"),
        ({"values": None, "file": "/etc/passwd", "key": "joy"}, {}, {}, "below the server's root"),
        ({"values": None, "file": "link.safetensors", "key": "joy"}, {}, {}, "below the server's root"),
        ({"values": None, "file": "none.safetensors", "key": "joy"}, {}, {}, "below the server's root"),
        ({"values": None, "file": "text.safetensors", "key": "joy"}, {}, {}, "no safetensors"),
        ({"values": None, "file": "d.safetensors", "key": "rage"}, {}, {}, "no tensor 'rage'"),
        ({"values": None, "file": "d.safetensors", "key": "joy", "sha256": "0" * 64}, {}, {}, "another sha256"),
        ({"values": None, "file": "d.safetensors", "key": "wide"}, {}, {}, "shape"),
        ({"values": None, "file": "d.safetensors", "key": "endless"}, {}, {}, "the length of the direction, inf,"),
        ({}, {"kl": 3}, SCORED, "prompt_tokens"), ({}, {"kl": 0, "prompt_tokens": 1}, SCORED, "kl"),
        ({}, {"kl": 3, "prompt_tokens": 1}, {}, "max_tokens 0"), ({}, {"kl": 3, "prompt_tokens": 1}, {**SCORED, "echo": False}, "echo"),
        ({}, {"kl": 3, "prompt_tokens": 1, "steering": []}, SCORED, "takes steering"),
        ({}, {"kl": 3, "prompt_tokens": 1}, {**SCORED, "prompt": [[5, 6], [7, 8]]}, "one prompt"),
        ({}, {"kl": 3, "prompt_tokens": 1}, {**SCORED, "n": 2}, "one prompt"),
        ({}, {}, {"max_tokens": 0}, "nothing to edit"), ({}, {"steering": "all"}, {}, "steering"),
        ({}, {"steering": [ADD] * 65}, {}, "steering"), ({}, {"steer": []}, {}, "accepted: save_dir"),
    ],
)  # fmt: skip
def test_what_cannot_be_steered_is_refused(
    server: NNsightServer, change: Edit, ndif: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    files(server.root)
    edit = {key: value for key, value in {**ADD, **change}.items() if value is not None}
    asked = {**body([5, 6, 7], [edit], ndif=ndif), **more}
    answer = httpx.post(f"{server.url}/v1/completions", json=asked, timeout=PATIENCE)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]["message"]
    assert "steering" in answer.json()["error"]["message"] or "kl" in answer.json()["error"]["message"]


def files(root: Path) -> None:
    """Direction files below a root, and one outside."""
    if (root / "link.safetensors").is_symlink():
        return
    root.mkdir(parents=True, exist_ok=True)
    tensors = {
        "joy": torch.ones(WIDTH),
        "wide": torch.ones(LAYERS + 1, WIDTH),
        "endless": torch.ones(WIDTH),
        "endless.norm": torch.tensor(float("inf")),
    }
    save_file(tensors, root / "d.safetensors")
    save_file(tensors, root.parent / "outside.safetensors")
    (root / "text.safetensors").write_text("no tensors at all")
    (root / "link.safetensors").symlink_to(root.parent / "outside.safetensors")


def test_a_chat_is_not_compared(server: NNsightServer) -> None:
    chat: dict[str, Any] = {"messages": [{"role": "user", "content": "Count."}], "max_tokens": 0}
    for ndif, words in (
        ({"steering": [ADD], "kl": 2, "prompt_tokens": 1}, "ndif.prompt_tokens"),
        ({"steering": [ADD]}, "nothing to edit"),
    ):
        answer = httpx.post(f"{server.url}/v1/chat/completions", json={**chat, "ndif": ndif}, timeout=PATIENCE)
        assert answer.status_code == 400
        assert words in answer.json()["error"]["message"]
