"""Fields of a request that other servers honour and this one does not.

Clients send many of them with values that ask for nothing; these are accepted. Any other value is refused, since an
answer that was made otherwise than asked is a wrong result.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema


class Only:
    """Marks a field that may be null or one of some values, which ask for nothing."""

    def __init__(self, *neutral: Any) -> None:
        self._neutral = neutral

    def check(self, value: Any) -> None:
        """Let a neutral value through, as null.

        Raises:
            ValueError: it is another value.
        """
        if value is None or any(_same(value, other) for other in self._neutral):
            return
        accepted = ", ".join(repr(other) for other in self._neutral)
        raise ValueError(f"this server cannot honour it; leave it out{f' (or send {accepted})' if accepted else ''}")

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"enum": [None, *self._neutral]}


def _same(value: Any, other: Any) -> bool:
    """Equality of JSON values: unlike in Python, false is not 0."""
    return bool(value is other if isinstance(value, bool) or isinstance(other, bool) else value == other)


class Unserved(BaseModel):
    """What both completion routes may be sent and do not serve."""

    # The OpenAI API
    presence_penalty: Annotated[Any, Only(0)] = None
    frequency_penalty: Annotated[Any, Only(0)] = None
    logit_bias: Annotated[Any, Only({})] = None
    store: Annotated[Any, Only(False)] = None
    service_tier: Annotated[Any, Only("auto", "default")] = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    # vLLM's additions
    repetition_penalty: Annotated[Any, Only(1)] = None
    length_penalty: Annotated[Any, Only(1)] = None
    top_k: Annotated[Any, Only(-1, 0)] = None
    min_p: Annotated[Any, Only(0)] = None
    min_tokens: Annotated[Any, Only(0)] = None
    use_beam_search: Annotated[Any, Only(False)] = None
    stop_token_ids: Annotated[Any, Only([])] = None
    bad_words: Annotated[Any, Only([])] = None
    allowed_token_ids: Annotated[Any, Only()] = None
    include_stop_str_in_output: Annotated[Any, Only(False)] = None
    skip_special_tokens: Annotated[Any, Only(True)] = None
    spaces_between_special_tokens: Annotated[Any, Only(True)] = None
    prompt_logprobs: Annotated[Any, Only()] = None
    truncate_prompt_tokens: Annotated[Any, Only()] = None
    structured_outputs: Annotated[Any, Only()] = None
    response_format: Annotated[Any, Only({"type": "text"})] = None
    priority: Annotated[Any, Only(0)] = None


class UnservedInChat(BaseModel):
    """What only chat completions may be sent."""

    tools: Annotated[Any, Only([])] = None
    tool_choice: Annotated[Any, Only("none", "auto")] = None
    parallel_tool_calls: bool | None = None
    functions: Annotated[Any, Only([])] = None
    function_call: Annotated[Any, Only("none", "auto")] = None
    modalities: Annotated[Any, Only(["text"])] = None
    audio: Annotated[Any, Only()] = None
    prediction: Annotated[Any, Only()] = None
    reasoning_effort: Annotated[Any, Only()] = None
    verbosity: Annotated[Any, Only()] = None
    web_search_options: Annotated[Any, Only()] = None
    moderation: Annotated[Any, Only()] = None
    prompt_cache_options: Annotated[Any, Only()] = None
    echo: Annotated[Any, Only(False)] = None
    add_generation_prompt: Annotated[Any, Only(True)] = None
    continue_final_message: Annotated[Any, Only(False)] = None
    add_special_tokens: Annotated[Any, Only(False)] = None
    documents: Annotated[Any, Only([])] = None
    chat_template: Annotated[Any, Only()] = None


class UnservedInText(BaseModel):
    """What only text completions may be sent."""

    suffix: Annotated[Any, Only("")] = None
    best_of: Annotated[Any, Only(1)] = None
    add_special_tokens: Annotated[Any, Only(True)] = None
