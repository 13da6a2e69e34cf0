"""A stand-in for a model server, for faults that no real one can be asked for, and for timing everything around it.

Run it as `python -m tests.stub_server PORT [DELAY [KEY [MODEL]]]`; MODEL is the directory of the tokenizer and chat
template of an agent. It answers completions with text and token ids that follow from the
request alone, captures with a breadcrumb and no files, and echoes edits without making them. `POST /faults` sets what
goes wrong: a JSON list of faults, `{"kind": …, "times": n, "match": word}`, used up in order; `match` limits a fault to
requests that contain the word (in prompts, by the embedded model's tokenizer), and what `hold` holds back is answered
when faults are set anew. `{"kind": "thought", "says": text, "tokenizer": path}` makes it say a text with a thought, as
far as a request allows. `GET /log` tells what was asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import secrets
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import uvicorn

MODEL = "stub"
TOKENIZER = Path(__file__).parents[1] / "results/models/smollm2-135m-instruct/tokenizer.json"


class Stub:
    """The ASGI application."""

    def __init__(self, delay: float = 0.0, api_key: str | None = None, model: str = MODEL) -> None:
        self.delay, self.api_key, self.model, self.tokenizer = delay, api_key, model, TOKENIZER
        self.agent: Callable[[list[dict[str, Any]]], str] = calling_agent
        self.faults: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.paths: set[str] = set()

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
            self.paths.add(path)
            await self.complete(send, request, body.decode())

    def says(self, word: str, request: dict[str, Any], text: str) -> bool:
        """Whether a request contains a word, as text or in the tokens of its prompt."""
        if not word or word in text:
            return True
        ids = request.get("prompt")
        return isinstance(ids, list) and word in tokenizer(self.tokenizer).decode(ids, skip_special_tokens=False)

    async def complete(self, send: Any, request: dict[str, Any], text: str) -> None:
        """Answer a completion, or fail as the next fault that matches says."""
        fault = next((fault for fault in self.faults if self.says(fault.get("match", ""), request, text)), None)
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
                answer["choices"][0].update(text="", token_ids=[])
                await reply(send, 200, answer)
                return
            elif kind == "deaf":  # as a server that knows no edits
                answer = completion(request)
                answer.pop("ndif", None)
                await reply(send, 200, answer)
                return
            elif kind == "other prompt":  # as a server that puts a token of its own before every prompt
                answer = completion(request)
                answer["choices"][0]["prompt_token_ids"] = [0, *request["prompt"]]
                await reply(send, 200, answer)
                return
            elif kind == "thought":
                await reply(send, 200, thinking_completion(request, fault["says"], tokenizer(Path(fault["tokenizer"]))))
                return
            elif kind == "raw":  # any bytes as the body of a good status
                await reply(send, 200, None, fault.get("headers"), fault["body"].encode())
                return
            elif kind == "nonsense":
                await reply(send, 200, ["not", "a", "completion"])
                return
        if self.delay:
            await asyncio.sleep(self.delay)
        if request.get("tools"):
            await reply(send, 200, tool_completion(request, self.agent(request["messages"]), self.tokenizer.parent))
            return
        await reply(send, 200, completion(request))


def completion(request: dict[str, Any]) -> dict[str, Any]:
    """An answer that follows from the prompt and the sampling parameters alone."""
    asked = request.get("ndif") or {}
    applied = {"steering": [edit | {"tokens": [7]} for edit in asked["steering"]]} if "steering" in asked else {}
    echo = {"ndif": asked | applied} if asked else {}
    if request.get("echo"):
        logs = [None, *([-0.5] * (len(request["prompt"]) - 1))]
        compared = {"kl": [0.25] * asked.get("kl", 0), "unedited": logs[asked.get("prompt_tokens", 0) :]}
        crumb = {"ndif": echo["ndif"] | compared} if "kl" in asked else echo
        return {"choices": [{"index": 0, "logprobs": {"token_logprobs": logs}}], **crumb}
    if request.get("max_tokens") == 0:
        return {"id": "cmpl-stub", "object": "text_completion", "model": MODEL, "ndif": request["ndif"]}
    chat = "messages" in request  # as other clients ask, such as lm-evaluation-harness
    prompt = [1, 2, 3] if chat else request["prompt"]
    key = json.dumps([request["messages"] if chat else prompt, request.get("seed"), request.get("temperature")])
    digest = hashlib.sha256(key.encode()).digest()
    content = f"I think about it for a while.\nAnswer: {digest[0] % 10}"
    if str(request.get("model")).startswith("judge"):
        content = judgement(request)
    tokens: dict[str, Any] = {"token_ids": [int(byte) for byte in digest]}
    said = {"message": {"role": "assistant", "content": content}} if chat else {"text": content}
    return {
        "id": "chatcmpl-stub" if chat else "cmpl-stub",
        "object": "chat.completion" if chat else "text_completion",
        "model": MODEL,
        "choices": [
            {"index": 0, **said, "finish_reason": "stop", **tokens, **({} if chat else {"prompt_token_ids": prompt})}
        ],
        "usage": {"prompt_tokens": len(prompt), "completion_tokens": 32, "total_tokens": len(prompt) + 32},
        **({"prompt_token_ids": prompt} if chat else {}),
        **echo,
    }


def calling_agent(messages: list[dict[str, Any]]) -> str:
    """What an agent says: it has the last two numbers added, and answers with the result."""
    if messages[-1]["role"] == "tool":
        return f"Answer: {messages[-1]['content']}"
    return tool_call("calculator", {"expression": " + ".join(re.findall(r"\d+", messages[-1]["content"])[-2:])})


def tool_call(name: str, arguments: dict[str, Any]) -> str:
    """A call of a tool as Qwen's models write it."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def tool_completion(request: dict[str, Any], says: str, model: Path) -> dict[str, Any]:
    """An answer of vLLM with tools, whose parser reads calls as models of Qwen write them."""
    import jinja2

    known, environment = tokenizer(model / "tokenizer.json"), jinja2.Environment()
    environment.filters["tojson"] = json.dumps
    shown = json.loads(json.dumps(request["messages"]))
    for call in (call for message in shown for call in message.get("tool_calls", [])):
        call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    template = environment.from_string((model / "chat_template.jinja").read_text())
    text = template.render(messages=shown, tools=request["tools"], add_generation_prompt=True)
    prompt, ids = (known.encode(part, add_special_tokens=False).ids for part in (text, f"{says}<|im_end|>"))
    content, *calls = says.split("<tool_call>")
    found = [json.loads(call.removesuffix("\n").removesuffix("</tool_call>")) for call in calls]
    message: dict[str, Any] = {"role": "assistant", "content": content or None}
    message["tool_calls"] = [
        {
            "id": f"chatcmpl-tool-{secrets.token_hex(8)}",
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
        }
        for call in found
    ]
    finish = "tool_calls" if calls else "stop"
    return {
        "id": "chatcmpl-stub",
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "token_ids": ids, "finish_reason": finish}],
        "prompt_token_ids": prompt,
        "usage": {
            "prompt_tokens": len(prompt),
            "completion_tokens": len(ids),
            "total_tokens": len(prompt) + len(ids),
        },
    }


def judgement(request: dict[str, Any]) -> str:
    """What a judge says of an answer by its last digit: even ones are polite, to the model `judge-low` those below 4.

    The model `judge-guess` names one of the categories by the digit. Of two answers the one with the larger digit is better, to the model `judge-first` always A.
    """
    pair = re.findall(r"<answer ([AB])>\n.*?(\d)\n</answer>", request["messages"][-1]["content"], re.DOTALL)
    if pair:
        (_, first), (_, second) = pair
        better = "A" if first > second else "B" if first < second else "tie"
        better = "A" if request["model"] == "judge-first" else better
        return json.dumps({"reason": f"{first} and {second}", "value": better})
    digit = request["messages"][-1]["content"].removesuffix("\n</answer>")[-1]
    if request["model"] == "judge-guess":
        names = re.findall('"([^"]+)"', request["messages"][0]["content"].partition('"value": one of ')[2])
        return json.dumps({"reason": f"it ends with {digit}", "value": names[int(digit) % len(names)]})
    value = digit in ("0123" if request["model"] == "judge-low" else "02468")
    return json.dumps({"reason": f"it ends with {digit}", "value": value})


def thinking_completion(request: dict[str, Any], says: str, tokens: Any) -> dict[str, Any]:
    """An answer that says a text, from where the prompt leaves off: at the answer, where that closed the thought."""
    prompt, ids = request["prompt"], tokens.encode(says, add_special_tokens=False).ids
    known = next(count for count in range(len(ids), -1, -1) if prompt[len(prompt) - count :] == ids[:count])
    rest = ids[known:]
    closed = tokens.decode(prompt, skip_special_tokens=False).endswith(("</think>\n\n", "final<|message|>"))
    if known == 0 and closed:
        rest = tokens.encode(says[says.rindex("Answer") :], add_special_tokens=False).ids
    kept = rest[: request["max_tokens"]]
    choice = {"text": tokens.decode(kept), "token_ids": kept, "prompt_token_ids": prompt}
    usage = {"prompt_tokens": len(prompt), "completion_tokens": len(kept), "total_tokens": len(prompt) + len(kept)}
    finish = "length" if len(kept) < len(rest) or len(rest) == request["max_tokens"] else "stop"
    return {
        "id": "cmpl-stub",
        "model": MODEL,
        "choices": [choice | {"index": 0, "finish_reason": finish}],
        "usage": usage,
    }


@cache
def tokenizer(path: Path) -> Any:
    """A tokenizer, to read prompts with."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(path))


async def reply(send: Any, status: int, value: Any, headers: Any = None, raw: bytes | None = None) -> None:
    """Send a JSON answer."""
    body = json.dumps(value).encode() if raw is None else raw
    named = {"content-type": "application/json", "content-length": len(body)} | (headers or {})
    fields = [(name.encode(), str(value).encode()) for name, value in named.items()]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    port, delay = int(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    stub = Stub(delay, sys.argv[3] or None if len(sys.argv) > 3 else None)
    if len(sys.argv) > 4:
        stub.tokenizer = Path(sys.argv[4]) / "tokenizer.json"
    # Errors are logged, as by any server: the pool reads there that a port was taken.
    uvicorn.run(stub, host="127.0.0.1", port=port, log_level="error", access_log=False, backlog=4096)
