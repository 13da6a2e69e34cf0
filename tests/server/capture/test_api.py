"""The NNsight server as its clients see it."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import yaml
from safetensors.torch import load_file

from emoprobe.conversations.rendering import Renderer
from emoprobe.results.activations import check, load_activations
from tests.conftest import PATIENCE
from tests.nnsight_server import NNsightServer
from tests.workspace import wait_for


@pytest.fixture(scope="module")
def server(nnsight_server: Callable[[str], NNsightServer]) -> NNsightServer:
    return nnsight_server("llama")


@pytest.fixture(scope="module")
def client(server: NNsightServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=PATIENCE)


def post(server: NNsightServer, path: str, body: Any, timeout: float = PATIENCE) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json=body, timeout=timeout)


def running(server: NNsightServer) -> int:
    found: int = httpx.get(f"{server.url}/health", timeout=PATIENCE).json()["running"]
    return found


CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Count to ten."}], "max_tokens": 8, "temperature": 0}
TEXT: dict[str, Any] = {"prompt": "One, two,", "max_tokens": 8, "temperature": 0}


def test_models_and_structure(server: NNsightServer, client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    found = httpx.get(f"{server.url}/v1/model/structure", timeout=PATIENCE).json()
    assert (found["n_layers"], found["d_model"], found["architecture"]) == (3, 48, "LlamaForCausalLM")
    shapes = {point["name"]: point["shape"][2] for point in found["hook_points"]}
    assert shapes["input_layernorm.output"] == shapes["post_attention_layernorm.output"] == shapes[".output"] == 48
    assert shapes["mlp.gate_proj.output"] == 96


def test_the_openai_client_chats_and_streams_the_same(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", **CHAT)
    chunks = list(
        client.chat.completions.create(model="tiny", stream=True, stream_options={"include_usage": True}, **CHAT)
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 8
    finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [finish for finish in finishes if finish] == ["length"]
    assert len(chunks) > 4


def test_the_openai_client_sends_several_turns_and_the_beginning_of_an_answer(
    client: openai.OpenAI, tiny: Callable[[str], Path]
) -> None:
    turns: list[Any] = [
        *CHAT["messages"],
        {"role": "assistant", "content": "One, two."},
        {"role": "user", "content": "Go on."},
        {"role": "assistant", "content": "Three,"},
    ]
    renderer, ids = Renderer.load(tiny("llama")), {"extra_body": {"return_token_ids": True}}
    asked: dict[str, Any] = {"model": "tiny", "max_tokens": 4, "temperature": 0.0, **ids}
    for messages in (turns[:1], turns[:3]):
        prompt = renderer.render(messages).token_ids
        chat = client.chat.completions.create(messages=messages, **asked)
        text = client.completions.create(prompt=prompt, **asked)
        assert (chat.model_extra or {})["prompt_token_ids"] == prompt
        assert chat.choices[0].message.content == text.choices[0].text
    # The assistant's last message is closed, unless the request says that it is the beginning of the answer.
    begun, closed = renderer.render(turns), renderer.render(turns, continued=False)
    assert begun.text.endswith("Three,")
    text = client.completions.create(prompt=begun.token_ids, **asked)
    assert (text.choices[0].model_extra or {})["prompt_token_ids"] == begun.token_ids
    fields = {"continue_final_message": True, "add_generation_prompt": False}
    for more, prompt in (({}, closed.token_ids), (fields, begun.token_ids)):
        chat = client.chat.completions.create(messages=turns, **asked | {"extra_body": ids["extra_body"] | more})
        assert (chat.model_extra or {})["prompt_token_ids"] == prompt
    assert chat.choices[0].message.content == text.choices[0].text


def test_the_openai_client_completes_and_streams_the_same(client: openai.OpenAI) -> None:
    whole = client.completions.create(model="tiny", logprobs=2, echo=True, **TEXT)
    chunks = list(client.completions.create(model="tiny", logprobs=2, echo=True, stream=True, **TEXT))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    scores = [
        value
        for chunk in chunks
        if chunk.choices and chunk.choices[0].logprobs
        for value in chunk.choices[0].logprobs.token_logprobs or []
    ]
    assert whole.choices[0].logprobs is not None
    expected = whole.choices[0].logprobs.token_logprobs or []
    assert scores[0] is None
    assert scores[1:] == pytest.approx(expected[1:], abs=1e-4)


def test_a_stream_ends_with_done_and_tells_where_activations_lie(server: NNsightServer) -> None:
    body = {**CHAT, "stream": True, "ndif": {"save_dir": "streamed"}}
    with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    crumb = next(event["ndif"] for event in events if "ndif" in event)
    assert load_file(Path(crumb["save_dir"]) / "activations.safetensors")
    assert events[0]["id"] == f"chatcmpl-{crumb['request_id']}"


def test_seeds_choices_and_nucleus(server: NNsightServer) -> None:
    body = {**CHAT, "temperature": 1.0, "seed": 5, "n": 3, "return_token_ids": True}
    first, again, other = (post(server, "/v1/chat/completions", {**body, "seed": seed}).json() for seed in (5, 5, 6))
    texts = [[choice["token_ids"] for choice in answer["choices"]] for answer in (first, again, other)]
    assert texts[0] == texts[1] != texts[2]
    assert len({tuple(tokens) for tokens in texts[0]}) == 3
    assert first["usage"]["completion_tokens"] == sum(len(tokens) for tokens in texts[0])
    narrow = post(server, "/v1/chat/completions", {**body, "top_p": 1e-9}).json()
    greedy = post(server, "/v1/chat/completions", {**CHAT, "return_token_ids": True}).json()
    assert all(choice["token_ids"] == greedy["choices"][0]["token_ids"] for choice in narrow["choices"])


def test_stop_strings_cut_the_text(server: NNsightServer) -> None:
    body = {**TEXT, "max_tokens": 30}
    whole = post(server, "/v1/completions", body).json()["choices"][0]["text"]
    stop = whole[12:15]
    cut = post(server, "/v1/completions", {**body, "stop": stop}).json()["choices"][0]
    assert cut["text"] == whole[: whole.index(stop)]
    assert cut["finish_reason"] == "stop"
    with httpx.stream(
        "POST", f"{server.url}/v1/completions", json={**body, "stop": [stop], "stream": True}, timeout=PATIENCE
    ) as answer:
        events = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: {")]
    assert "".join(event["choices"][0]["text"] for event in events) == cut["text"]


def test_batches_of_prompts_keep_their_order(server: NNsightServer) -> None:
    prompts = ["One", "Two two two two", "Three three"]
    together = post(server, "/v1/completions", {**TEXT, "prompt": prompts}).json()["choices"]
    alone = [
        post(server, "/v1/completions", {**TEXT, "prompt": prompt}).json()["choices"][0]["text"] for prompt in prompts
    ]
    assert [choice["index"] for choice in together] == [0, 1, 2]
    assert [choice["text"] for choice in together] == alone


CLIENTS: list[dict[str, str]] = [
    {"x-emoprobe-client": "joe"}, {"authorization": "Bearer a"}, {"authorization": "Bearer a", "x-emoprobe-client": "joe"},
]  # fmt: skip


@pytest.mark.parametrize("who", range(len(CLIENTS)))
def test_interventions_are_the_defaults_of_one_client(server: NNsightServer, who: int) -> None:
    with httpx.Client(base_url=server.url, headers=CLIENTS[who], timeout=PATIENCE) as client:
        before = client.get("/v1/interventions").json()
        fields = {"layers": [1], "hook_points": ["mlp.output"], "dtype": "float32"}
        changed = client.post("/v1/interventions", json=fields).json()
        assert changed == {**before, **fields}
        for path, body in (("/v1/completions", TEXT), ("/v1/chat/completions", CHAT)):
            answer = client.post(path, json={**body, "ndif": {"save_dir": "defaults"}}).json()
            assert answer["ndif"]["shapes"] == {"mlp.output": [1, 5, 48]}
        answer = client.post("/v1/completions", json={**TEXT, "ndif": {"save_dir": "override", "layers": "all"}}).json()
        assert answer["ndif"]["shapes"] == {"mlp.output": [3, 5, 48]}
        steered = {"steering": [{"values": [1.0] * 48, "layers": [0], "operation": "add"}]}
        assert "shapes" not in client.post("/v1/completions", json={**TEXT, "ndif": steered}).json()["ndif"]
        for others in ({}, *(headers for number, headers in enumerate(CLIENTS) if number != who)):
            assert httpx.get(f"{server.url}/v1/interventions", headers=others, timeout=PATIENCE).json() == before
            body = {**TEXT, "ndif": {"save_dir": "others"}}
            answer = httpx.post(f"{server.url}/v1/completions", headers=others, json=body, timeout=PATIENCE).json()
            assert len(answer["ndif"]["shapes"]) == 2
        assert client.post("/v1/interventions", json=before).json() == before


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"layers": [9]}, "-3 to 2"), ({"layers": [1, 1]}, "different"), ({"hook_points": ["nose.output"]}, "nose"),
        ({"hook_points": []}, "hook_points"), ({"positions": [999999]}, "position 999999 lies outside"),
        ({"positions": [-999999]}, "lies outside"), ({"positions": ["middle"]}, "last_prompt"), ({"dtype": "int8"}, "dtype"),
        ({"positions": list(range(9000))}, "at most 8192"), ({"save_dir": "x"}, "accepted: layers, hook_points"),
    ],
)  # fmt: skip
def test_interventions_are_checked_as_requests_are(server: NNsightServer, body: Any, words: str) -> None:
    headers = {"x-emoprobe-client": "checked"}
    url = f"{server.url}/v1/interventions"
    before = httpx.get(url, headers=headers, timeout=PATIENCE).json()
    answer = httpx.post(url, json=body, headers=headers, timeout=PATIENCE)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert httpx.get(url, headers=headers, timeout=PATIENCE).json() == before


def test_interventions_need_a_client(server: NNsightServer) -> None:
    answer = post(server, "/v1/interventions", {"layers": [1]})
    assert answer.status_code == 400
    assert "x-emoprobe-client" in answer.json()["error"]["message"]
    named = httpx.get(f"{server.url}/v1/interventions", headers={"x-emoprobe-client": "a b"}, timeout=PATIENCE)
    assert named.status_code == 400


ROUTES = [
    ("GET", "/health"), ("GET", "/v1/models"), ("GET", "/v1/model/structure"), ("GET", "/v1/interventions"),
    ("POST", "/v1/interventions"), ("POST", "/v1/completions"), ("POST", "/v1/chat/completions"),
    ("GET", "/v1/activations/x/metadata.json"), ("DELETE", "/v1/activations/x"), ("GET", "/openapi.json"), ("GET", "/docs"),
    ("OPTIONS", "/v1/completions"), ("GET", "/nowhere"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421), ({"host": "evil.example:8001"}, 421), ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": "0.0.0.0"}, 421), ({"host": "192.168.0.7"}, 421), ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403), ({"origin": "http://localhost.evil.example"}, 403),
    ],
)  # fmt: skip
def test_pages_reach_no_server_without_a_key(
    server: NNsightServer, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    answer = httpx.request(method, f"{server.url}{path}", headers=headers, timeout=PATIENCE)
    assert answer.status_code == status
    assert "EMOPROBE_API_KEY" in answer.json()["error"]["message"]


@pytest.mark.parametrize("host", ["localhost", "localhost:8001", "127.0.0.1", "127.9.9.9:80", "[::1]:8001"])
@pytest.mark.parametrize("origin", [None, "http://localhost:3000", "http://127.0.0.1"])
def test_programs_and_pages_of_this_machine_reach_it(server: NNsightServer, host: str, origin: str | None) -> None:
    headers = {"host": host} | ({} if origin is None else {"origin": origin})
    assert httpx.get(f"{server.url}/v1/models", headers=headers, timeout=PATIENCE).status_code == 200


def test_curl_reaches_it(server: NNsightServer) -> None:
    command = ["curl", "-sS", f"http://localhost:{server.port}/v1/chat/completions"]
    command += ["-H", "content-type: application/json", "-d", json.dumps(CHAT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert json.loads(done.stdout)["choices"], done.stderr


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("/v1/completions", {"prompt": "x", "ndif": {"layerz": [1]}}, ["ndif.layerz", "accepted: save_dir", "layers"]),
        ("/v1/completions", {"prompt": "x", "ndif": {"layers": [3]}}, ["layers: 3", "-3 to 2"]),
        ("/v1/completions", {"prompt": "x", "ndif": {"layers": "some"}}, ["ndif.layers", "`all` or a list"]),
        ("/v1/completions", {"prompt": "x", "ndif": {"hook_points": ["nose.output"]}}, ["nose.output", "accepted: resid_pre", ".input"]),
        ("/v1/completions", {"prompt": "x", "ndif": {"positions": ["middle"]}}, ["ndif.positions", "last_prompt"]),
        ("/v1/completions", {"prompt": "x", "max_tokens": 0, "ndif": {"positions": [99]}}, ["position 99", "sequence of"]),
        ("/v1/completions", {"prompt": "x", "ndif": {"dtype": "int8"}}, ["ndif.dtype", "float16"]),
        ("/v1/completions", {"prompt": "x", "ndif": {"push": True}}, ["ndif.push", "start it with --push URL"]),
        ("/v1/completions", {"prompt": "x", "ndif": {"request_id": "a b"}}, ["ndif.request_id"]),
        ("/v1/completions", {"prompt": ["x", "y"], "ndif": {}}, ["one prompt with n = 1"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"prompt_tokens": 3}}, ["ndif.prompt_tokens = 3"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"messages": [{"role": "user", "content": "x"}]}}, ["ndif.messages"]),
        ("/v1/completions", {"prompt": ""}, ["prompt"]),
        ("/v1/completions", {"prompt": []}, ["prompt"]),
        ("/v1/completions", {"prompt": [10**9]}, ["token id 1000000000 does not exist"]),
        ("/v1/completions", {"prompt": [-1]}, ["prompt"]),
        ("/v1/completions", {"prompt": "\ud800"}, ["surrogate"]),
        ("/v1/completions", {"prompt": "x", "max_tokens": 10**6}, ["holds", "max_tokens asks for"]),
        ("/v1/completions", {"prompt": "x", "max_tokens": -1}, ["max_tokens"]),
        ("/v1/completions", {"prompt": "x", "n": 10**6}, ["n:"]),
        ("/v1/completions", {"prompt": "x", "temperature": 3}, ["temperature"]),
        ("/v1/completions", {"prompt": "x", "top_p": 0}, ["top_p"]),
        ("/v1/completions", {"prompt": "x", "stop": ["a"] * 99}, ["stop"]),
        ("/v1/completions", {}, ["prompt"]),
        ("/v1/chat/completions", {"messages": []}, ["messages"]),
        ("/v1/chat/completions", {"messages": [{"role": "robot", "content": "x"}]}, ["messages.0.role"]),
        ("/v1/chat/completions", {"messages": "hi"}, ["messages"]),
        ("/v1/interventions", {"colour": "red"}, ["colour", "accepted: layers"]),
        ("/v1/chat/completions", {**CHAT, "colour": "red"}, ["colour: is no known field", "accepted: model", "messages"]),
        ("/v1/completions", {"prompt": "x", "maxtokens": 5}, ["maxtokens: is no known field", "max_tokens"]),
        ("/v1/chat/completions", {**CHAT, "stream_options": {"usage": True}}, ["stream_options.usage", "include_usage"]),
        ("/v1/chat/completions", {**CHAT, "top_logprobs": 2}, ["top_logprobs: only together with logprobs"]),
        ("/v1/chat/completions", {**CHAT, "ndif": {"prompt_tokens": 2}}, ["ndif.prompt_tokens"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"message_spans": {"prefix": None}}}, ["together with ndif.messages"]),
        ("/v1/chat/completions", {**CHAT, "ndif": {"message_spans": {"response": None}}}, ["message_spans.response", "accepted: system, prefix, question"]),
        ("/v1/chat/completions", {**CHAT, "ndif": {"message_spans": {"response": [0, 0, 1]}}}, ["accepted: system, prefix, question"]),
        ("/v1/chat/completions", {**CHAT, "ndif": {"message_spans": {str(n): None for n in range(20000)}}}, ["accepted: system, prefix"]),
        ("/v1/completions", {"prompt": "x", "ndif": {"steering": [{"value": [1.0]}]}}, ["ndif.steering.0.value", "accepted: file, key, sha256, values"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"messages": [{"role": "user"}], "message_spans": {"prefix": [0, 0, 1]}}}, ["message_spans.prefix"]),
        ("/v1/completions", {"prompt": [1], "ndif": {"messages": [{"content": "x"}]}}, ["ndif.messages.0.role"]),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "y": 1}]}]}, ["y: is no known field; accepted: type, text"]),
        ("/v1/completions", {"prompt": "x", "stop": "s" * 5000}, ["stop", "4096"]),
        ("/v1/completions", {"prompt": "x", "model": "m" * 5000}, ["model"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"date": "2025-01-31"}}, ["ndif.date", "together with ndif.messages"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"date": "soon", "messages": []}}, ["ndif.date"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"token_spans": {}, "messages": []}}, ["either these or ndif.messages"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"token_spans": {"response": [0, 1]}}}, ["ndif.token_spans.response"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"token_spans": {"prefix": [0, 3]}}}, ["token_spans.prefix = [0, 3]", "2 tokens"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"token_spans": {"prefix": [1, 1]}}}, ["is no span"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"turns": {"1": [1, 3]}}}, ["ndif.turns.1 = [1, 3]", "2 tokens"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"positions": ["turn1.response_mean"]}}, ["turns are is not known"]),
        ("/v1/completions", {"prompt": [1, 2, 3], "ndif": {"prompt_tokens": 2, "token_spans": {"question": [2, 3]}}}, ["2 tokens"]),
        ("/v1/completions", {"prompt": [1, 2], "ndif": {"messages": [{"role": "user"}], "message_spans": {"prefix": [0, 0, 1]}}}, ["messages"]),
        ("/v1/chat/completions", {**CHAT, "ndif": {"token_spans": {}}}, ["ndif.token_spans"]),
    ],
)  # fmt: skip
def test_bad_requests_say_what_is_accepted(server: NNsightServer, path: str, body: Any, words: list[str]) -> None:
    answer = httpx.post(
        f"{server.url}{path}", content=json.dumps(body), headers={"content-type": "application/json"}, timeout=60
    )
    assert answer.status_code == 400, answer.text
    for word in words:
        assert word in answer.json()["error"]["message"]


def test_another_models_name_is_not_found(server: NNsightServer, client: openai.OpenAI) -> None:
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/completions", TEXT)):
        answer = post(server, path, {**body, "model": "gpt-9"})
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert "`gpt-9` does not exist" in error["message"]
        assert "`tiny`" in error["message"]
        assert error["param"] == "model"
        assert post(server, path, {**body, "model": "tiny"}).status_code == 200
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-9", **CHAT)


def test_what_the_openai_client_sends_for_nothing_is_accepted(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", **CHAT, user="me", metadata={"run": "1"}, store=False, tools=[], tool_choice="none",
        parallel_tool_calls=True, logit_bias={}, presence_penalty=0, frequency_penalty=0.0, service_tier="auto",
        response_format={"type": "text"}, top_logprobs=None, logprobs=False, n=1, modalities=["text"],
        stream_options=None, prompt_cache_key="x", safety_identifier="y",
        extra_body={"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "skip_special_tokens": True, "ndif": None},
    )  # fmt: skip
    assert answer.choices[0].message.content is not None
    text = client.completions.create(model="tiny", **TEXT, best_of=1, suffix=None, user="me", logit_bias={})
    assert text.choices[0].text


def test_the_openai_client_sees_what_is_refused(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", "function": {"name": "f", "parameters": {}}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny", **CHAT, tools=[tool])
    assert caught.value.param == "tools"


def test_parts_of_the_stream_are_captured_and_loaded_by_name(server: NNsightServer) -> None:
    structure = httpx.get(f"{server.url}/v1/model/structure", timeout=PATIENCE).json()
    assert structure["residual_stream"] == {
        "resid_pre": {"is": ".input", "why": None},
        "attn_out": {"is": "self_attn.output", "why": None},
        "resid_mid": {"is": "post_attention_layernorm.input", "why": None},
        "mlp_out": {"is": "mlp.output", "why": None},
        "resid_post": {"is": ".output", "why": None},
    }
    points = list(structure["residual_stream"])
    wanted = {"layers": "all", "hook_points": [*points, ".output"], "positions": ["last_prompt", "response_mean"]}
    body = {**CHAT, "ndif": {**wanted, "dtype": "float32", "save_dir": "named/activations/control/gsm8k_0001"}}
    answer = post(server, "/v1/chat/completions", body)
    assert answer.status_code == 200, answer.text
    folder = server.root / "named"
    part = {point: load_activations(folder, point, "last_prompt").values for point in [*points, ".output"]}
    assert part["resid_mid"].shape == (1, 3, 48)
    for total, before, gained in (("resid_mid", "resid_pre", "attn_out"), ("resid_post", "resid_mid", "mlp_out")):
        difference = np.abs(part[total] - part[before] - part[gained]).max()
        assert difference <= 1e-5 * np.abs(part[total]).max()
    assert np.array_equal(part[".output"], part["resid_post"])
    assert np.array_equal(part["resid_post"][:, :-1], part["resid_pre"][:, 1:])
    assert check(folder / "activations/control/gsm8k_0001") == []


def test_a_family_without_a_place_says_so(nnsight_server: Callable[[str], NNsightServer]) -> None:
    server = nnsight_server("gpt_neox")
    structure = httpx.get(f"{server.url}/v1/model/structure", timeout=PATIENCE).json()
    assert structure["residual_stream"]["resid_mid"]["is"] is None
    assert "side by side" in structure["residual_stream"]["resid_mid"]["why"]
    assert "resid_mid" not in {point["name"] for point in structure["hook_points"]}
    answer = post(server, "/v1/completions", {**TEXT, "ndif": {"hook_points": ["resid_mid"]}})
    assert answer.status_code == 400
    assert "no resid_mid: attention and MLP stand side by side" in answer.json()["error"]["message"]


def test_sixty_four_requests_at_once_are_not_mixed_up(server: NNsightServer) -> None:
    generator = random.Random(0)
    bodies = []
    for number in range(64):
        ids = [generator.randrange(5, 49000) for _ in range(generator.randrange(2, 120))]
        body: dict[str, Any] = {"prompt": ids, "max_tokens": number % 12, "temperature": 0, "return_token_ids": True}
        if number % 2:
            body["ndif"] = {"save_dir": f"many/{number}", "positions": "all", "dtype": "float32"}
        bodies.append(body)

    async def run() -> list[dict[str, Any]]:
        async with httpx.AsyncClient(timeout=PATIENCE, limits=httpx.Limits(max_connections=64)) as session:
            answers = await asyncio.gather(
                *(session.post(f"{server.url}/v1/completions", json=body) for body in bodies)
            )
        return [answer.json() for answer in answers]

    for number, (body, together) in enumerate(zip(bodies, asyncio.run(run()), strict=True)):
        if "ndif" in body:
            body["ndif"]["save_dir"] = f"alone/{number}"
        alone = post(server, "/v1/completions", body).json()
        assert together["choices"][0]["token_ids"] == alone["choices"][0]["token_ids"]
        assert together["usage"] == alone["usage"]
        if "ndif" in body:
            pair = [
                load_file(Path(answer["ndif"]["save_dir"]) / "activations.safetensors") for answer in (together, alone)
            ]
            for name, tensor in pair[0].items():
                assert tensor.shape == pair[1][name].shape
                assert float((tensor - pair[1][name]).abs().max() / pair[1][name].abs().max()) <= 1e-5


def test_a_client_that_goes_away_frees_its_place(server: NNsightServer) -> None:
    body = {"prompt": ["endless"] * 64, "max_tokens": 1900, "ignore_eos": True, "temperature": 0}
    with pytest.raises(httpx.ReadTimeout):
        post(server, "/v1/completions", body, timeout=1.0)
    wait_for(lambda: running(server) == 0, PATIENCE, "an idle server")
    with httpx.stream(
        "POST", f"{server.url}/v1/completions", json={**body, "stream": True}, timeout=PATIENCE
    ) as answer:
        for number, _ in enumerate(answer.iter_lines()):
            if number > 3:
                break
    wait_for(lambda: running(server) == 0, PATIENCE, "an idle server")


def test_long_sequences_with_all_positions_stay_within_memory(server: NNsightServer) -> None:
    ids = [random.Random(1).randrange(5, 49000) for _ in range(2000)]
    body = {"prompt": ids, "max_tokens": 0, "ndif": {"positions": "all", "dtype": "float32", "save_dir": "long"}}
    answer = post(server, "/v1/completions", body).json()
    assert answer["ndif"]["shapes"]["input_layernorm.output"] == [3, 2000, 48]
    assert httpx.get(f"{server.url}/health", timeout=PATIENCE).json()["held_bytes"] == 0


def test_lm_eval_runs_against_the_server(server: NNsightServer, tmp_path: Path) -> None:
    import lm_eval
    from lm_eval.tasks import TaskManager

    rows = [
        {"question": "2 + 2 =", "choices": ["4", "5"], "answer": 0},
        {"question": "3 + 3 =", "choices": ["6", "9"], "answer": 0},
    ]
    (tmp_path / "rows.json").write_text("\n".join(json.dumps(row) for row in rows))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.json")}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
    }
    choice = common | {
        "task": "tiny_choice",
        "output_type": "multiple_choice",
        "doc_to_choice": "choices",
        "doc_to_target": "answer",
    }
    generate = common | {
        "task": "tiny_generate",
        "output_type": "generate_until",
        "doc_to_target": "{{choices[0]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8},
        "metric_list": [{"metric": "exact_match"}],
    }
    for task in (choice, generate):
        (tmp_path / f"{task['task']}.yaml").write_text(yaml.safe_dump(task))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    arguments = f"model=tiny,tokenizer={server.model},num_concurrent=4,max_retries=1"
    scored = lm_eval.simple_evaluate(
        model="local-completions",
        model_args=f"{arguments},base_url={server.url}/v1/completions,tokenized_requests=True",
        tasks=["tiny_choice"],
        task_manager=manager,
        bootstrap_iters=0,
    )
    assert 0.0 <= scored["results"]["tiny_choice"]["acc,none"] <= 1.0
    generated = lm_eval.simple_evaluate(
        model="local-chat-completions",
        model_args=f"{arguments},base_url={server.url}/v1/chat/completions",
        tasks=["tiny_generate"],
        task_manager=manager,
        bootstrap_iters=0,
        apply_chat_template=True,
    )
    assert "exact_match,none" in generated["results"]["tiny_generate"]


def test_a_token_that_the_embedding_lacks_is_named(
    tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A tokenizer with one token more than the model, as it is where somebody adds one and does not resize the model."""
    folder = tmp_path_factory.mktemp("extra")
    shutil.copytree(tiny("llama"), folder / "model")
    path = folder / "model/tokenizer.json"
    tokenizer = json.loads(path.read_text())
    size = len(tokenizer["model"]["vocab"])
    extra = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    tokenizer["added_tokens"].append({"id": size, "content": "<|extra|>", **extra})
    path.write_text(json.dumps(tokenizer))
    server = NNsightServer(folder / "model", folder / "activations")
    try:
        message = {"role": "user", "content": "hi <|extra|>"}
        for route, body in (("chat/completions", {"messages": [message]}), ("completions", {"prompt": "hi <|extra|>"})):
            answer = post(server, f"/v1/{route}", body)
            assert answer.status_code == 400, answer.text
            text = answer.json()["error"]["message"]
            assert f"token id {size} does not exist" in text
            assert "'<|extra|>'" in text
            assert "\n" not in text
    finally:
        server.stop()
