"""A stand-in for a model server, for faults that no real one can be asked for, and for timing everything around it.

Run it as `python -m tests.stub_server PORT`. It answers chat completions with text and token ids that follow from the
request alone, captures with a breadcrumb and no files, and echoes edits without making them. `POST /faults` sets what
goes wrong: a JSON list of faults, `{"kind": …, "times": n, "match": word}`, used up in order; `match` limits a fault to
requests that contain the word, and what `hold` holds back is answered when faults are set anew. `GET /log` tells what
was asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from typing import Any

import uvicorn

MODEL = "stub"


class Stub:
    """The ASGI application."""

    def __init__(self, delay: float = 0.0, api_key: str | None = None, model: str = MODEL) -> None:
        self.delay, self.api_key, self.model = delay, api_key, model
        self.faults: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path = scope["path"]
        headers = dict(scope["headers"])
        if path == "/health":
            await reply(send, 200, {})
        elif self.api_key and headers.get(b"authorization") != f"Bearer {self.api_key}".encode():
            await reply(send, 401, {"error": {"message": "wrong key"}})
        elif path == "/v1/models":
            await reply(send, 200, {"data": [{"id": self.model}]})
        elif path == "/faults":
            self.faults = json.loads(body)
            await reply(send, 200, {})
        elif path == "/log":
            await reply(send, 200, self.requests)
        else:
            request = json.loads(body)
            self.requests.append(request)
            await self.complete(send, request, body.decode())

    async def complete(self, send: Any, request: dict[str, Any], text: str) -> None:
        """Answer a chat completion, or fail as the next fault that matches says."""
        fault = next((fault for fault in self.faults if fault.get("match", "") in text), None)
        if fault is not None:
            fault["times"] = fault.get("times", 1) - 1
            if fault["times"] <= 0:
                self.faults.remove(fault)
            kind = fault["kind"]
            if kind == "hang":
                await asyncio.sleep(3600)
            if kind == "hold":
                held = self.faults
                while self.faults is held:  # until other ones are set
                    await asyncio.sleep(0.02)
            elif kind == "slow":
                await asyncio.sleep(fault["seconds"])
            elif kind == "status":
                await reply(
                    send,
                    fault["status"],
                    {"error": {"message": fault.get("message", "injected")}},
                    fault.get("headers"),
                )
                return
            elif kind == "truncated":
                await reply(send, 200, None, raw=json.dumps(completion(request))[:100].encode())
                return
            elif kind == "reset":
                await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10000")]})
                await send({"type": "http.response.body", "body": b'{"id": "x', "more_body": True})
                raise ConnectionResetError
            elif kind == "empty":
                answer = completion(request)
                answer["choices"][0].update(message={"role": "assistant", "content": ""}, token_ids=[])
                await reply(send, 200, answer)
                return
            elif kind == "deaf":  # as a server that knows no edits
                answer = completion(request)
                answer.pop("ndif", None)
                await reply(send, 200, answer)
                return
            elif kind == "nonsense":
                await reply(send, 200, ["not", "a", "completion"])
                return
        if self.delay:
            await asyncio.sleep(self.delay)
        await reply(send, 200, completion(request))


def completion(request: dict[str, Any]) -> dict[str, Any]:
    """An answer that follows from the messages and the sampling parameters alone."""
    asked = request.get("ndif") or {}
    applied = {"steering": [edit | {"tokens": [7]} for edit in asked["steering"]]} if "steering" in asked else {}
    echo = {"ndif": asked | applied} if asked else {}
    if request.get("echo"):
        logs = [None, *([-0.5] * (len(request["prompt"]) - 1))]
        compared = {"kl": [0.25] * asked.get("kl", 0), "unedited": logs[asked.get("prompt_tokens", 0) :]}
        crumb = {"ndif": echo["ndif"] | compared} if "kl" in asked else echo
        return {"choices": [{"index": 0, "logprobs": {"token_logprobs": logs}}], **crumb}
    if "messages" not in request:
        return {"id": "cmpl-stub", "object": "text_completion", "model": MODEL, "ndif": request["ndif"]}
    key = json.dumps([request["messages"], request.get("seed"), request.get("temperature")])
    digest = hashlib.sha256(key.encode()).digest()
    content = f"I think about it for a while.\nAnswer: {digest[0] % 10}"
    return {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "model": MODEL,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": content},
                "finish_reason": "stop",
                "token_ids": [int(byte) for byte in digest],
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 32, "total_tokens": 35},
        "prompt_token_ids": [1, 2, 3],
        **echo,
    }


async def reply(send: Any, status: int, value: Any, headers: Any = None, raw: bytes | None = None) -> None:
    """Send a JSON answer."""
    body = json.dumps(value).encode() if raw is None else raw
    fields = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    fields += [(name.encode(), str(value).encode()) for name, value in (headers or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    port, delay = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    key = sys.argv[3] if len(sys.argv) > 3 else None
    uvicorn.run(Stub(delay, key), host="127.0.0.1", port=port, log_level="critical", access_log=False, backlog=4096)
