"""Answers in the shape of the OpenAI API: objects, chunks of a stream, log-probabilities, errors."""

from __future__ import annotations

import json
import time
from typing import Any

from server.capture.choice_state import ChoiceState, Logprob
from server.capture.prompts import PromptTokenizer, TokenizedPrompt
from server.capture.scoring import TokenScores


def error_body(message: str, status: int, param: str | None = None) -> dict[str, Any]:
    """An error as OpenAI clients read it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": status}}


def event(value: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


DONE = "data: [DONE]\n\n"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Token counts."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def envelope(identifier: str, kind: str, model: str) -> dict[str, Any]:
    """What every object and chunk begins with."""
    return {"id": identifier, "object": kind, "created": int(time.time()), "model": model}


def chat_choice(index: int, row: ChoiceState, tokens: PromptTokenizer, *, token_ids: bool) -> dict[str, Any]:
    """One choice of a chat completion."""
    choice: dict[str, Any] = {
        "index": index,
        "message": {"role": "assistant", "content": row.decoder.text, "refusal": None},
        "logprobs": None if row.logprobs is None else {"content": chat_logprobs(row, tokens, 0)},
        "finish_reason": row.finish,
    }
    return choice | ({"token_ids": row.token_ids} if token_ids else {})


def chat_logprobs(row: ChoiceState, tokens: PromptTokenizer, begin: int) -> list[dict[str, Any]]:
    """Log-probabilities of generated tokens from `begin` on, as chat completions have them."""

    def entry(token: int, value: float) -> dict[str, Any]:
        text = tokens.decode([token], special=True)
        return {"token": text, "logprob": value, "bytes": list(text.encode())}

    return [
        {**entry(token, value), "top_logprobs": [entry(*best) for best in top]}
        for token, (value, top) in zip(row.token_ids[begin:], row.scores[begin:], strict=True)
    ]


def completion_choice(
    index: int,
    row: ChoiceState,
    prompt: TokenizedPrompt,
    tokens: PromptTokenizer,
    scores: TokenScores | None,
    *,
    echo: bool,
    token_ids: bool,
) -> dict[str, Any]:
    """One choice of a text completion; with `echo`, the prompt stands before it."""
    ahead = tokens.decode(prompt.token_ids, special=True) if echo else ""
    logprobs = None
    if row.logprobs is not None:
        ids, values = list(row.token_ids), [*row.scores]
        known: list[Logprob | None] = [*values]
        if echo and scores is not None:
            tops = scores.top or [[]] * len(scores.token)
            # Nothing stands before the first token, so it has no probability.
            known = [None, *zip(scores.token, tops, strict=True), *values]
            ids = prompt.token_ids + ids
        logprobs = completion_logprobs(ids, known, tokens, 0)
    choice: dict[str, Any] = {
        "index": index,
        "text": ahead + row.decoder.text,
        "logprobs": logprobs,
        "finish_reason": row.finish or "length",
    }
    return choice | ({"token_ids": row.token_ids, "prompt_token_ids": prompt.token_ids} if token_ids else {})


def completion_logprobs(
    ids: list[int], known: list[Logprob | None], tokens: PromptTokenizer, offset: int
) -> dict[str, Any]:
    """Log-probabilities as text completions have them; `offset` is where the first token's text begins."""
    texts = [tokens.decode([token], special=True) for token in ids]
    offsets = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [None if entry is None else entry[0] for entry in known],
        "top_logprobs": [
            None if entry is None else {tokens.decode([token], special=True): value for token, value in entry[1]}
            for entry in known
        ],
        "text_offset": offsets,
    }
