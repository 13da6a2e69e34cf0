"""Prompts and decoding, without a server."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from emoprobe.conversations.rendering import PromptError
from emoprobe.results.trajectory import Message
from server.capture.prompts import Decoder, PromptTokenizer
from tests import byte_tokenizer
from tests.byte_tokenizer import CHATML


@pytest.fixture(scope="module")
def tokens(smollm2: Path) -> PromptTokenizer:
    return PromptTokenizer(AutoTokenizer.from_pretrained(smollm2), 256)


def messages(*contents: str) -> list[Message]:
    return [{"role": role, "content": content} for role, content in zip(("system", "user"), contents, strict=True)]


@pytest.mark.parametrize(
    "text", ["Hello, world", "naïve café", "数字は七です", "🙂🙃 family: 👨‍👩‍👧", "a\n\n  b\tc", "½ ≠ ¼"]
)
def test_decoding_token_by_token_gives_the_whole(tokens: PromptTokenizer, text: str) -> None:
    ids = tokens.encode(text)
    decoder = Decoder(tokens, [])
    streamed = ""
    for number, token in enumerate(ids):
        decoder.add(token, final=number == len(ids) - 1)
        streamed += decoder.delta()
        assert "\ufffd" not in streamed
    assert decoder.text == streamed + decoder.delta(final=True) == text


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [(["STOP"], "one two STOP three", "one two "), (["b c", "two"], "a b c two", "a "), (["\n\n"], "x\n\ny", "x")],
)
def test_nothing_of_a_stop_string_is_given_away(
    tokens: PromptTokenizer, stops: list[str], text: str, expected: str
) -> None:
    decoder = Decoder(tokens, stops)
    streamed = ""
    for token in tokens.encode(text):
        decoder.add(token)
        streamed += decoder.delta()
        assert expected.startswith(streamed)
        if decoder.stopped:
            break
    assert decoder.stopped
    assert streamed + decoder.delta(final=True) == expected == decoder.text


def test_marks_become_spans_of_tokens(tokens: PromptTokenizer) -> None:
    conversation = messages("Be brief.", "Hurry up!\n\nWhat is 2 + 3?")
    prompt = tokens.chat(conversation, {}, {"prefix": (1, 0, 9), "question": (1, 11, 25), "system": None})
    assert prompt.spans.system is None
    for span, text in ((prompt.spans.prefix, "Hurry up!"), (prompt.spans.question, "What is 2 + 3?")):
        assert span is not None
        assert tokens.decode(prompt.token_ids[slice(*span)]).strip() == text
    assert prompt.spans.response == (len(prompt.token_ids), len(prompt.token_ids))


@pytest.mark.parametrize("mark", [(2, 0, 1), (-1, 0, 1), (1, 3, 2), (1, 0, 99)])
def test_marks_outside_of_the_messages_are_refused(tokens: PromptTokenizer, mark: tuple[int, int, int]) -> None:
    with pytest.raises(PromptError, match="lies outside of the messages"):
        tokens.chat(messages("a", "b"), {}, {"prefix": mark})


@pytest.fixture
def templated(tmp_path: Path) -> Callable[[str], PromptTokenizer]:
    """A tokenizer with a chat template."""

    def load(template: str) -> PromptTokenizer:
        return PromptTokenizer(AutoTokenizer.from_pretrained(byte_tokenizer.write(tmp_path, template)), 2048)

    return load


@pytest.mark.parametrize(("role", "part"), [("system", "prefix"), ("user", "question")])
def test_a_part_that_the_template_leaves_out_is_refused(
    templated: Callable[[str], PromptTokenizer], role: str, part: str
) -> None:
    tokens = templated(CHATML.replace("in messages", f"in messages if message['role'] != '{role}'"))
    conversation = messages("Be brief. Hurry!", "2 + 3?")
    marks: dict[str, tuple[int, int, int] | None] = {"prefix": (0, 10, 16), "question": (1, 0, 6)}
    with pytest.raises(PromptError, match=rf"message_spans.{part} = .*leaves this text out of the prompt.*'{role}'"):
        tokens.chat(conversation, {}, marks)
    assert tokens.chat(conversation, {}, {"system": (0, 0, 9)} if role == "system" else {}).spans.system is None


def test_the_day_is_fixed_and_can_be_given(templated: Callable[[str], PromptTokenizer]) -> None:
    tokens = templated("{{ strftime_now('%Y-%m-%d') }} " + CHATML)
    conversation = messages("a", "b")
    assert tokens.decode(tokens.chat(conversation, {}).token_ids).startswith("2024-07-26 ")
    given = tokens.chat(conversation, {}, None, datetime.date(2030, 1, 2))
    assert tokens.decode(given.token_ids).startswith("2030-01-02 ")


def test_what_is_no_prompt_is_refused(tokens: PromptTokenizer) -> None:
    with pytest.raises(PromptError, match="half of a surrogate pair"):
        tokens.encode("\ud800")
    with pytest.raises(PromptError, match="more than the model's context"):
        tokens.encode("x" * 10**6)
    with pytest.raises(PromptError, match="may not set tokenize"):
        tokens.chat(messages("a", "b"), {"tokenize": True})


def test_end_tokens_of_model_and_tokenizer_are_joined(smollm2: Path) -> None:
    found = PromptTokenizer(AutoTokenizer.from_pretrained(smollm2), 256)
    own = found.eos_ids
    found.with_eos([5, 6])
    found.with_eos(7)
    found.with_eos(None)
    assert found.eos_ids == own | {5, 6, 7}
