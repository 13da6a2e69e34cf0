"""The NNsight server among clients that mean no good: nothing breaks, nothing leaks, nothing is written elsewhere."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import save_file

from tests.conftest import PATIENCE
from tests.nnsight_server import NNsightServer
from tests.workspace import ROOT, wait_for

KEY = "not-for-everybodys-eyes"
HEADERS = {"Authorization": f"Bearer {KEY}"}
FUZZED = 2000
REQUESTS, CONNECTIONS = 1000, 128
GROWTH = 64 * 2**20  # bytes that allocators may keep, over all that this module sends


@pytest.fixture(scope="module")
def server(tiny: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[NNsightServer]:
    """A server with a key and little patience: what asks for too much ends in 408, and soon.

    It is no copy, so that its memory and its environment are its own.
    """
    root = tmp_path_factory.mktemp("hostile") / "activations"
    limits = ("--request-timeout", "5", "--memory-gib", "0.5")
    started = NNsightServer(tiny("llama"), root, *limits, api_key=KEY, copied=False)
    yield started
    started.stop()


@pytest.fixture(scope="module")
def patient(nnsight_server: Callable[[str], NNsightServer]) -> NNsightServer:
    """A server without a limit that a slow machine could meet."""
    return nnsight_server("llama")


def memory(server: NNsightServer) -> int:
    """Resident memory of the server, in bytes."""
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def load(server: NNsightServer) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{server.url}/health", timeout=PATIENCE).json()
    return found


def idle(server: NNsightServer) -> bool:
    return not any(load(server)[key] for key in ("running", "waiting", "passes", "held_bytes"))


def complete(server: NNsightServer, **body: Any) -> httpx.Response:
    content = json.dumps({"prompt": "One, two,", "max_tokens": 2, "temperature": 0} | body)
    headers = {**HEADERS, "content-type": "application/json"}
    return httpx.post(f"{server.url}/v1/completions", content=content, headers=headers, timeout=PATIENCE)


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nope"}, {"Authorization": KEY}])
def test_without_the_key_only_health_answers(server: NNsightServer, headers: dict[str, str]) -> None:
    assert httpx.get(f"{server.url}/health", timeout=PATIENCE).status_code == 200
    for path in ("/v1/models", "/v1/model/structure", "/v1/interventions", "/openapi.json", "/docs"):
        assert httpx.get(f"{server.url}{path}", headers=headers, timeout=PATIENCE).status_code == 401
    assert (
        httpx.post(f"{server.url}/v1/completions", json={"prompt": "x"}, headers=headers, timeout=PATIENCE).status_code
        == 401
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_other_addresses_demand_a_key(tiny: Callable[[str], Path], host: str) -> None:
    command = [sys.executable, "-m", "server", "--model", str(tiny("llama")), "--host", host]
    env = {name: value for name, value in os.environ.items() if name != "EMOPROBE_API_KEY"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert "set an API key in EMOPROBE_API_KEY" in done.stderr


def test_the_key_is_in_no_log_and_no_list_of_processes(server: NNsightServer) -> None:
    assert complete(server).status_code == 200
    assert KEY not in server.log.read_text()
    assert KEY.encode() not in Path(f"/proc/{server.process.pid}/cmdline").read_bytes()
    assert KEY not in httpx.get(f"{server.url}/openapi.json", headers=HEADERS, timeout=PATIENCE).text


@pytest.mark.parametrize(
    "save_dir",
    [
        "../out", "a/../../out", "a/..", "/tmp/out", "/etc", "~/out", "link/out", "link", "", " ", ".", "./.", ".hidden/x",
        "a\0b", "\0", "x" * 256, "x/" * 2100, "x/" * 2040, "é" * 200, "a\nb", "$(touch out)", "file:///tmp/out", "\\\\host\\share", "a;b", "%2e%2e/out",
        "file.txt", "file.txt/x", "loop/x", "taken",
    ],
)  # fmt: skip
def test_nothing_is_written_outside_of_the_root(server: NNsightServer, save_dir: str) -> None:
    outside = server.root.parent / "outside"
    outside.mkdir(exist_ok=True)
    for name, target in (("link", outside), ("loop", server.root / "loop")):
        if not (server.root / name).is_symlink():
            (server.root / name).symlink_to(target)
    (server.root / "file.txt").write_text("mine")
    (server.root / "taken").mkdir(exist_ok=True)
    (server.root / "taken" / "thesis.tex").write_text("mine")
    before = files_below(server.root.parent)
    answer = complete(server, max_tokens=0, ndif={"save_dir": save_dir, "positions": "all"})
    assert answer.status_code == 400, answer.text
    assert "save_dir" in answer.json()["error"]["message"]
    assert files_below(server.root.parent) == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"n": 65}, 400),
        ({"prompt": ["x"] * 1025}, 400),
        ({"prompt": ["x"] * 1000, "n": 2}, 400),
        ({"max_tokens": 2**62}, 400),
        ({"prompt": "x" * (10 << 20)}, 400),
        ({"prompt": "x" * (17 << 20)}, 413),
        ({"ndif": {"positions": list(range(-1, 10**5))}}, 400),
        ({"stop": ["x"] * 17}, 400),
        ({"logprobs": 21}, 400),
        ({"seed": 2**63}, 400),
        ({"prompt": ["endless"] * 64, "max_tokens": 1900, "ignore_eos": True}, 408),
    ],
)
def test_limits(server: NNsightServer, body: dict[str, Any], status: int) -> None:
    answer = complete(server, **body)
    assert answer.status_code == status, answer.text[:500]
    assert answer.json()["error"]["message"]
    wait_for(lambda: idle(server), PATIENCE, "an idle server")


def test_a_stream_has_a_limit_of_time_too(server: NNsightServer) -> None:
    body = {"prompt": ["endless"] * 64, "max_tokens": 1900, "ignore_eos": True, "stream": True}
    answer = complete(server, **body)
    *_, last, done = [line for line in answer.text.splitlines() if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == 408
    assert done == "data: [DONE]"
    wait_for(lambda: idle(server), PATIENCE, "an idle server")


@contextmanager
def peak(server: NNsightServer) -> Iterator[list[int]]:
    """Watch a server's memory; what is yielded holds, in the end, by how many bytes it grew at most."""
    before, grown, done = memory(server), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            grown[0] = max(grown[0], memory(server) - before)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield grown
    finally:
        done.set()
        thread.join()


BUDGET = 2**29  # of --memory-gib 0.5
EDIT = {"operation": "add", "layers": "all", "values": [1.0] * 48}
GREEDY: list[tuple[dict[str, Any], int]] = [
    # 2,000 tokens times 4,000 positions, and many at once
    (
        {"prompt": [5] * 2000, "max_tokens": 0, "ndif": {"save_dir": "greedy", "positions": list(range(-2000, 2000))}},
        48,
    ),
    # 20 prompts of 1,000 tokens, with 20 alternatives to each token
    ({"prompt": [[5] * 1000] * 20, "max_tokens": 0, "echo": True, "logprobs": 20}, 8),
    ({"prompt": ["x"] * 16, "n": 64, "max_tokens": 1900, "logprobs": 20, "ignore_eos": True}, 4),
    ({"prompt": "x", "max_tokens": 1, "ndif": {"steering": [EDIT] * 64}}, 48),
]


@pytest.mark.parametrize("number", range(len(GREEDY)))
def test_what_requests_hold_is_counted(server: NNsightServer, number: int) -> None:
    body, count = GREEDY[number]
    complete(server)
    with peak(server) as grown, ThreadPoolExecutor(count) as pool:
        answers = list(pool.map(lambda _: complete(server, **body), range(count)))
    statuses = Counter(answer.status_code for answer in answers)
    assert set(statuses) <= {200, 400, 408, 429}, statuses
    assert grown[0] < BUDGET + GROWTH, statuses
    for answer in answers:
        if answer.status_code in (400, 429):
            assert "memory" in answer.json()["error"]["message"]
    wait_for(lambda: idle(server), PATIENCE, "an idle server")
    wait_for(lambda: complete(server).status_code == 200, PATIENCE, "memory that is given back")


def test_lists_in_bodies_are_counted(server: NNsightServer) -> None:
    bodies: list[dict[str, Any]] = [{"metadata": {"x": [[]] * 5_000_000}}, {"ndif": {"positions": [0] * 5_000_000}}]
    with peak(server) as grown:
        for body in bodies:
            assert complete(server, **body).status_code in (400, 413)
    assert grown[0] < BUDGET + GROWTH


def test_refused_directions_are_not_remembered(server: NNsightServer) -> None:
    """Files with tensors that are no direction of this model: neither read whole nor kept."""
    server.root.mkdir(exist_ok=True)
    path = server.root / "large.safetensors"
    save_file({f"d{number}": torch.zeros(4 << 20, dtype=torch.float16) for number in range(16)}, path)
    with peak(server) as grown:
        for number in range(16):
            edit = {"file": path.name, "key": f"d{number}", "layers": "all", "operation": "add"}
            answer = complete(server, ndif={"steering": [edit]})
            assert answer.status_code == 400
            assert "shape [4194304]; accepted: [48] or [3, 48]" in answer.json()["error"]["message"]
    assert grown[0] < GROWTH


@pytest.mark.parametrize("kind", ["one endless header", "idle", "half-sent bodies"])
def test_a_crowd_that_sends_nothing_whole_locks_nobody_out(server: NNsightServer, kind: str) -> None:
    head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer " + KEY.encode() + b"\r\n"
    first = {"one endless header": head + b"a: ", "idle": b""}.get(kind, head + b"content-length: 9\r\n\r\n{")
    crowd = [socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) for _ in range(400)]
    try:
        with peak(server) as grown:
            for connection in crowd:
                connection.sendall(first)
            for _ in range(30 if kind == "one endless header" else 0):
                for connection in crowd[:8]:
                    with suppress(OSError):
                        connection.sendall(b"x" * (1 << 20))
            assert complete(server).status_code == 200
        assert grown[0] < GROWTH
    finally:
        for connection in crowd:
            connection.close()


@pytest.mark.parametrize("name", ["chat_template", "tokenize", "return_tensors", "conversation"])
def test_a_request_brings_no_template_of_its_own(server: NNsightServer, name: str) -> None:
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "chat_template_kwargs": {
            name: "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
        },
    }
    answer = httpx.post(f"{server.url}/v1/chat/completions", json=body, headers=HEADERS, timeout=PATIENCE)
    assert answer.status_code == 400
    assert name in answer.json()["error"]["message"]


@pytest.mark.parametrize(("mode", "examples"), [("negative", "150"), ("positive", "6")])
def test_schemathesis_finds_no_server_error(server: NNsightServer, mode: str, examples: str, tmp_path: Path) -> None:
    before = memory(server)
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    command += ["-H", f"Authorization: {HEADERS['Authorization']}", "--checks", "not_a_server_error", "--seed", "1"]
    command += ["--mode", mode, "--max-examples", examples, "--phases", "fuzzing", "--request-timeout", str(PATIENCE)]
    command += [
        "--continue-on-failure",
        "--no-shrink",
        "--suppress-health-check",
        "all",
        "--workers",
        "1",
    ]  # its strategies are shared, and no two threads may build one
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert server.process.poll() is None
    wait_for(lambda: idle(server), PATIENCE, "an idle server")
    assert memory(server) - before < GROWTH


SEEDS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "temperature": 0.5}),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "stream": True}),
    ("/v1/completions", {"prompt": [1, 2, 3], "max_tokens": 0, "echo": True, "logprobs": 1}),
    ("/v1/completions", {"prompt": "x", "max_tokens": 1, "ndif": {"save_dir": "fuzz/1", "layers": [0], "positions": [0]}}),
    (
        "/v1/completions",
        {
            "prompt": [5, 6], "max_tokens": 0,
            "ndif": {"message_spans": {"prefix": [0, 0, 2]}, "messages": [{"role": "user", "content": "x"}], "prompt_tokens": 1},
        },
    ),
    ("/v1/interventions", {"layers": "all", "positions": ["last_prompt"]}),
]  # fmt: skip
ODD: list[Any] = [
    None, True, -1, 0, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, "", "\0", "\ud800", "x" * 5000, [], {}, [[]], [None],
    {"": None}, "NaN", [2**40] * 5, {"type": "text", "text": "x"}, [{"type": "image_url", "image_url": "file:///etc/passwd"}],
]  # fmt: skip


def change_value(value: Any, generator: random.Random) -> Any:
    """A JSON value with something odd somewhere in it."""
    if isinstance(value, dict) and value and generator.random() < 0.8:
        key = generator.choice(list(value))
        if generator.random() < 0.1:
            return {name: part for name, part in value.items() if name != key}
        return value | {key: change_value(value[key], generator)}
    if isinstance(value, list) and value and generator.random() < 0.7:
        place = generator.randrange(len(value))
        return [*value[:place], change_value(value[place], generator), *value[place + 1 :]]
    return generator.choice(ODD)


def raw_request(generator: random.Random) -> bytes:
    """The bytes of an HTTP request that may be wrong at any level."""
    path, body = generator.choice(SEEDS)
    content = json.dumps(change_value(body, generator)).encode()
    kind = generator.randrange(8)
    if kind == 1:
        content = bytes(byte ^ (1 << generator.randrange(8)) if generator.random() < 0.05 else byte for byte in content)
    elif kind == 2:
        content = content[: generator.randrange(len(content) + 1)]
    elif kind == 3:
        content = generator.choice(
            [b"[" * 50000, b'{"a":' * 20000, b"NaN", b"Infinity", b"\xff\xfe{}", b"1" * 9999, b"\0" * 99]
        )
    elif kind == 4:
        content = generator.randbytes(generator.randrange(300))
    media = generator.choice([b"application/json"] * 6 + [b"text/plain", b"multipart/form-data; boundary=x", b"\xff"])
    encoding = generator.choice(
        [b""] * 6 + [b"content-encoding: gzip\r\n", b"content-type: application/json; charset=utf-16\r\n"]
    )
    method = generator.choice([b"POST"] * 9 + [b"PUT", b"DELETE", b"BREW", b"get"])
    key = b"" if generator.random() < 0.05 else b"authorization: Bearer " + KEY.encode() + b"\r\n"
    size = len(content) if generator.random() < 0.95 else generator.choice([0, 1, len(content) // 2])
    head = b"%b %b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n%b%bcontent-type: %b\r\ncontent-length: %d\r\n\r\n"
    return head % (method, path.encode(), key, encoding, media, size) + content


def status_of(server: NNsightServer, request: bytes) -> int:
    """The status that a raw request gets; 0 where the connection was closed without one."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
        try:
            connection.sendall(request)
            answer = b""
            while part := connection.recv(65536):
                answer += part
        except (ConnectionResetError, BrokenPipeError):
            pass
    words = answer.split(b" ", 2)
    return int(words[1]) if len(words) > 1 else 0


def test_no_raw_body_is_a_server_error(server: NNsightServer) -> None:
    generator = random.Random(7)
    before = httpx.get(f"{server.url}/v1/interventions", headers=HEADERS, timeout=PATIENCE).json()
    for _ in range(300):  # allocators take what they need first
        status_of(server, raw_request(generator))
    resident = memory(server)
    seen: Counter[int] = Counter()
    for number in range(FUZZED):
        request = raw_request(generator)
        status = status_of(server, request)
        assert status < 500, (number, status, request[:2000])
        seen[status] += 1
    assert seen[200] > FUZZED / 50, seen  # some of it goes all the way to the model
    assert seen[400] > FUZZED / 5, seen
    assert server.process.poll() is None
    assert memory(server) - resident < GROWTH
    assert not (server.root.parent / "out").exists()
    httpx.post(f"{server.url}/v1/interventions", json=before, headers=HEADERS, timeout=PATIENCE)
    assert complete(server).status_code == 200


def test_a_crowd_of_which_half_goes_away(patient: NNsightServer) -> None:
    bodies: list[dict[str, Any]] = [{"prompt": [5 + number % 50, 7, 9], "max_tokens": 1 + number % 9, "temperature": 0, "ignore_eos": True,
               "return_token_ids": True, **({"ndif": {"save_dir": f"crowd/{number}"}} if number % 10 == 0 else {})}
              for number in range(REQUESTS)]  # fmt: skip
    generator = random.Random(3)

    async def crowd(requests: int) -> dict[int, dict[str, Any]]:
        answers: dict[int, dict[str, Any]] = {}
        gate = asyncio.Semaphore(CONNECTIONS)
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        async with httpx.AsyncClient(timeout=PATIENCE, headers=HEADERS, limits=limits) as client:

            async def one(number: int) -> None:
                async with gate:
                    work = asyncio.create_task(client.post(f"{patient.url}/v1/completions", json=bodies[number]))
                    if number % 2:
                        await asyncio.sleep(generator.random() * 0.3)
                        work.cancel()
                        await asyncio.wait({work})
                        return
                    answer = await work
                    assert answer.status_code == 200, answer.text
                    answers[number] = answer.json()

            await asyncio.gather(*(one(number) for number in range(requests)))
        return answers

    asyncio.run(crowd(REQUESTS // 4))  # allocators take what they need first
    wait_for(lambda: idle(patient), PATIENCE, "an idle server")
    before = memory(patient)
    answers = asyncio.run(crowd(REQUESTS))
    wait_for(lambda: idle(patient), PATIENCE, "an idle server")
    assert memory(patient) - before < GROWTH
    assert len(answers) == REQUESTS / 2
    alone: dict[int, list[int]] = {}  # by the prompt's first token; a shorter answer is the beginning of a longer one
    for number, answer in answers.items():
        first, length = bodies[number]["prompt"][0], bodies[number]["max_tokens"]
        if first not in alone:
            body = {name: value for name, value in bodies[number].items() if name != "ndif"} | {"max_tokens": 9}
            alone[first] = complete(patient, **body).json()["choices"][0]["token_ids"]
        assert answer["choices"][0]["token_ids"] == alone[first][:length]
        assert answer["usage"]["completion_tokens"] == bodies[number]["max_tokens"]
        if "ndif" in bodies[number]:
            assert (patient.root / f"crowd/{number}" / "activations.safetensors").exists()
