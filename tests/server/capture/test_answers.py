"""Answers in the OpenAI shape, read by the OpenAI client's own types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from openai.types.chat import ChatCompletion
from transformers import AutoTokenizer

from emoprobe.results.activation_folder import TokenSpans
from server.capture import completions, errors
from server.capture.engine import ChoiceState
from server.capture.errors import AsciiJSON
from server.capture.model import TokenScores
from server.capture.prompts import Decoder, PromptTokenizer, TokenizedPrompt


@pytest.fixture(scope="module")
def tokens(smollm2: Path) -> PromptTokenizer:
    return PromptTokenizer(AutoTokenizer.from_pretrained(smollm2), 256)


def generated(tokens: PromptTokenizer, text: str, logprobs: int | None) -> ChoiceState:
    ids = tokens.encode(text)
    row = ChoiceState([1], 10, 0.0, 1.0, None, Decoder(tokens, []), lambda: None, logprobs=logprobs)
    for number, token in enumerate(ids):
        row.token_ids.append(token)
        row.decoder.add(token, final=number == len(ids) - 1)
        row.scores.append((-0.5, [(token, -0.5)] * (logprobs or 0)))
    row.finish = "stop"
    return row


def test_a_chat_choice_is_one(tokens: PromptTokenizer) -> None:
    row = generated(tokens, "Café!", 1)
    body = completions.envelope("chatcmpl-1", "chat.completion", "tiny") | {
        "choices": [completions.chat_choice(0, row, tokens, token_ids=False)],
        "usage": completions.usage(1, len(row.token_ids)),
    }
    found = ChatCompletion.model_validate(body, strict=True)
    assert found.choices[0].message.content == "Café!"
    assert found.choices[0].logprobs is not None
    entries = found.choices[0].logprobs.content or []
    assert b"".join(bytes(entry.bytes or []) for entry in entries).decode(errors="replace")
    assert [entry.top_logprobs[0].token for entry in entries] == [entry.token for entry in entries]


@pytest.mark.parametrize("echo", [True, False])
def test_a_text_choice_tells_the_prompts_scores_only_with_echo(tokens: PromptTokenizer, echo: bool) -> None:
    row = generated(tokens, " three", 0)
    ids = tokens.encode("One two")
    prompt = TokenizedPrompt(ids, TokenSpans(response=(len(ids), len(ids))))
    scores = TokenScores([-1.0] * (len(ids) - 1), [])
    choice = completions.completion_choice(0, row, prompt, tokens, scores, echo=echo, token_ids=True)
    assert choice["text"] == ("One two three" if echo else " three")
    # The first token of all has no probability: null, as in the API, whatever the client's types say.
    expected = [None, *[-1.0] * (len(ids) - 1)] if echo else []
    found = choice["logprobs"]
    assert found["token_logprobs"] == [*expected, *[-0.5] * len(row.token_ids)]
    assert found["text_offset"] == [len("".join(found["tokens"][:number])) for number in range(len(found["tokens"]))]
    assert choice["prompt_token_ids"] == ids


def test_errors_and_events_are_json() -> None:
    assert errors.error_body("no", 400, "n")["error"] == {
        "message": "no", "type": "invalid_request_error", "param": "n", "code": 400,
    }  # fmt: skip
    assert errors.error_body("no", 500)["error"]["type"] == "server_error"
    assert json.loads(completions.event({"a": "é\n"}).removeprefix("data: ").strip()) == {"a": "é\n"}
    assert json.loads(bytes(AsciiJSON({"quoted": "\ud800"}).body)) == {"quoted": "\ud800"}
