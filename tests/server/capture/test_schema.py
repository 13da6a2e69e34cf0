"""What a request may say, without a server: served, asking for nothing, or refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params
from pydantic import BaseModel, ValidationError

from server.capture.schema import (
    ChatMessage,
    ChatRequest,
    CompletionRequest,
    Interventions,
    Ndif,
    PartSpans,
    Sampling,
    StreamEdit,
    _models_of,
    accepted_fields,
)
from tests.workspace import ROOT

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]}
TEXT: dict[str, Any] = {"prompt": "x"}
NEUTRAL: list[tuple[str, Any]] = [
    ("tools", []), ("tool_choice", "none"), ("tool_choice", "auto"), ("functions", []), ("function_call", "none"),
    ("response_format", {"type": "text"}), ("logit_bias", {}), ("presence_penalty", 0), ("presence_penalty", 0.0),
    ("frequency_penalty", 0.0), ("repetition_penalty", 1.0), ("user", "me"), ("metadata", {"a": "b"}),
    ("store", False), ("stream_options", {"include_usage": True}), ("parallel_tool_calls", True), ("n", 1),
    ("service_tier", "auto"), ("modalities", ["text"]), ("top_k", -1), ("min_p", 0.0), ("min_tokens", 0),
    ("stop_token_ids", []), ("skip_special_tokens", True), ("return_token_ids", True), ("seed", 1),
    ("chat_template_kwargs", {"enable_thinking": False}), ("ndif", {"save_dir": "x"}), ("prompt_cache_key", "k"),
    ("continue_final_message", False), ("add_generation_prompt", True),
]  # fmt: skip
REFUSED: list[tuple[str, Any]] = [
    ("tools", [{"type": "function", "function": {"name": "f"}}]), ("tool_choice", "required"),
    ("functions", [{"name": "f"}]), ("function_call", {"name": "f"}), ("response_format", {"type": "json_object"}),
    ("logit_bias", {"5": 100}), ("presence_penalty", 0.5), ("presence_penalty", False), ("frequency_penalty", -1),
    ("repetition_penalty", 1.1), ("repetition_penalty", True), ("store", True), ("store", 0), ("n", 65),
    ("service_tier", "priority"), ("modalities", ["text", "audio"]), ("audio", {"voice": "x"}), ("top_k", 50),
    ("min_p", 0.1), ("min_tokens", 5), ("stop_token_ids", [2]), ("use_beam_search", True), ("prompt_logprobs", 1),
    ("skip_special_tokens", False), ("reasoning_effort", "high"), ("verbosity", "low"), ("prediction", {}),
    ("structured_outputs", {"regex": "a"}), ("guided_json", {}), ("web_search_options", {}), ("chat_template", "x"),
    ("echo", True), ("temprature", 0), ("", 1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), NEUTRAL)
def test_what_asks_for_nothing_is_accepted(name: str, value: Any) -> None:
    ChatRequest.model_validate({**CHAT, name: value})
    ChatRequest.model_validate({**CHAT, name: None})


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_what_cannot_be_honoured_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValidationError) as caught:
        ChatRequest.model_validate({**CHAT, name: value})
    assert caught.value.errors()[0]["loc"] == (name,)


BEGUN = [*CHAT["messages"], {"role": "assistant", "content": "y"}]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"continue_final_message": True}, "goes together with add_generation_prompt: false"),
        ({"add_generation_prompt": False}, "goes together with add_generation_prompt: false"),
        ({"continue_final_message": True, "add_generation_prompt": False, **CHAT}, "is not the assistant's"),
    ],
)
def test_the_beginning_of_an_answer_is_the_assistant_s_and_no_new_turn_begins(
    fields: dict[str, Any], words: str
) -> None:
    begun = {"messages": BEGUN, "continue_final_message": True, "add_generation_prompt": False}
    assert ChatRequest.model_validate(begun).continue_final_message
    with pytest.raises(ValidationError, match=words):
        ChatRequest.model_validate({"messages": BEGUN, **fields})


@pytest.mark.parametrize(
    ("name", "value"), [("best_of", 3), ("suffix", "x"), ("add_special_tokens", False), ("tools", [])]
)
def test_text_completions_have_fields_of_their_own(name: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=name):
        CompletionRequest.model_validate({**TEXT, name: value})


@pytest.mark.parametrize(
    ("module", "request_class"),
    [
        (chat_params.CompletionCreateParamsBase, ChatRequest),
        (text_params.CompletionCreateParamsBase, CompletionRequest),
    ],
)
def test_every_field_of_the_openai_client_is_known(module: Any, request_class: Any) -> None:
    """None of them is an unknown field, so that null, which some clients send for all of them, is accepted."""
    assert set(module.__annotations__) <= set(request_class.model_fields)


def test_the_fields_that_are_told_are_those_that_do_something() -> None:
    assert "tools" not in ChatRequest.served_fields()
    assert {"messages", "ndif", "temperature", "chat_template_kwargs"} <= set(ChatRequest.served_fields())
    assert "echo" in CompletionRequest.served_fields()


def test_stop_strings_are_a_list() -> None:
    assert ChatRequest.model_validate({**CHAT, "stop": "a"}).stops == ["a"]
    assert ChatRequest.model_validate({**CHAT, "stop": ["a", ""]}).stops == ["a"]
    assert ChatRequest.model_validate(CHAT).stops == []


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("x", ["x"]), ([1, 2], [[1, 2]]), (["x", "y"], ["x", "y"]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_prompts_are_one_or_many(prompt: Any, expected: Any) -> None:
    assert CompletionRequest.model_validate({"prompt": prompt}).prompts == expected


@pytest.mark.parametrize("prompt", [[], [[]], [1, "x"], [True], [1.5], {}, None])
def test_prompts_of_no_kind_are_refused(prompt: Any) -> None:
    with pytest.raises(ValidationError):
        CompletionRequest.model_validate({"prompt": prompt})


def test_content_may_come_in_parts() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": parts, "name": "me"}]})
    assert request.messages[0].plain() == {"role": "user", "content": "ab", "name": "me"}
    with pytest.raises(ValidationError):
        ChatRequest.model_validate({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})


def test_what_a_request_leaves_out_has_the_default() -> None:
    defaults = Ndif(layers=[0], hook_points=["resid_post"], positions="all", dtype="float32")
    over = Ndif(layers="all", save_dir="x").over(defaults)
    assert (over.layers, over.hook_points, over.save_dir) == ("all", ["resid_post"], "x")
    assert Interventions(layers=[1]).model_dump(exclude_none=True) == {"layers": [1]}


@pytest.mark.parametrize(
    "field",
    [{"layers": [0, 0]}, {"layers": []}, {"positions": ["nowhere"]}, {"hook_points": []}, {"request_id": "a b"}],
)
def test_overrides_that_make_no_sense_are_refused(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Ndif.model_validate(field)


def models_below(model: type[BaseModel], place: tuple[int | str, ...] = ()) -> Iterator[tuple[type[BaseModel], Any]]:
    """Every model in a body, and a place in the body where one is."""
    yield model, place
    for name, field in model.model_fields.items():
        for nested in _models_of(field.annotation):
            index = (0,) if "list" in str(field.annotation) else ()
            yield from models_below(nested, (*place, name, *index))


NESTED = [
    (body, model, place)
    for body in (ChatRequest, CompletionRequest, Interventions)
    for model, place in models_below(body)
]


@pytest.mark.parametrize(("body", "model", "place"), NESTED)
def test_an_unknown_field_is_answered_with_the_fields_of_its_model(
    body: type[BaseModel], model: type[BaseModel], place: tuple[int | str, ...]
) -> None:
    if model is ChatMessage:  # its other fields go to the chat template
        assert model.model_config["extra"] == "allow"
        return
    assert model.model_config["extra"] == "forbid", model
    content: Any = {"unknown": 1}
    for part in reversed(place):
        content = [content] if isinstance(part, int) else {part: content}
    with pytest.raises(ValidationError) as caught:
        body.model_validate(content)
    errors = caught.value.errors()
    (where,) = (
        error["loc"] for error in errors if error["type"] == "extra_forbidden" and error["loc"][-1] == "unknown"
    )
    served = model.served_fields() if issubclass(model, Sampling) else list(model.model_fields)
    assert accepted_fields(body, where) == served


def test_there_are_nested_models() -> None:
    assert {model.__name__ for _, model, _ in NESTED} >= {
        "StreamEdit",
        "Ndif",
        "PartSpans",
        "ContentPart",
        "StreamOptions",
    }


@pytest.mark.parametrize("model", [Ndif, StreamEdit, PartSpans, Interventions])
def test_every_field_of_our_own_is_in_the_documentation(model: type[BaseModel]) -> None:
    text = (ROOT / "docs" / "server.md").read_text(encoding="utf-8")
    missing = [name for name in model.model_fields if f"`{name}`" not in text]
    assert missing == []
