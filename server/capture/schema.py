"""The requests that the server accepts; a field that it does not know is an error, wherever it stands.

They are those of the OpenAI API with one extension, the field `ndif`. It is named after the National Deep Inference
Fabric (NDIF, https://ndif.us), whose servers let researchers reach into the models that they run; here it says which
activations of a request are kept, and where.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from emoprobe.config.science.capture import Capture
from emoprobe.config.science.model import Dtype


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
    """Fields of both completion routes that are accepted and not served."""

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
    """Fields of chat completions alone."""

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
    add_special_tokens: Annotated[Any, Only(False)] = None
    documents: Annotated[Any, Only([])] = None
    chat_template: Annotated[Any, Only()] = None


class UnservedInText(BaseModel):
    """Fields of text completions alone."""

    suffix: Annotated[Any, Only("")] = None
    best_of: Annotated[Any, Only(1)] = None
    add_special_tokens: Annotated[Any, Only(True)] = None


MAX_CHOICES = 64
MAX_PROMPTS = 1024
MAX_STOPS = 16
MAX_STOP_LENGTH = 4096  # characters
MAX_MESSAGES = 4096
MAX_POSITIONS = 8192
RequestId = Annotated[str, Field(max_length=200, pattern=r"^[\x21-\x7e]+$")]
TokenId = Annotated[int, Field(ge=0, strict=True)]


def _layers(layers: Any) -> Any:
    return layers if layers is None else Capture.check_layers(layers)


def _positions(positions: Any) -> Any:
    if isinstance(positions, list) and len(positions) > MAX_POSITIONS:
        raise ValueError(f"must be `all` or a list of at most {MAX_POSITIONS} positions")
    return positions if positions is None else Capture.check_positions(positions)


# What a capture may leave out, in a request and among a client's defaults.
Layers = Annotated[Literal["all"] | list[int] | None, BeforeValidator(_layers)]
HookPoints = Annotated[list[Annotated[str, Field(max_length=200)]] | None, Field(min_length=1, max_length=1000)]
Positions = Annotated[Literal["all"] | list[int | str] | None, BeforeValidator(_positions)]
Characters = tuple[int, int, int]


class StreamEdit(BaseModel):
    """One edit of the residual stream at the output of decoder layers, while the model runs.

    The direction is given as `values`, or as the tensor `key` of a safetensors file below the server's root: one for
    all layers, or a row for each. It is measured in the length `{key}.norm` of that file (such as the median norm of
    the stream), or else in its own.

    A client that shares no disk with the server sends along what the file holds for `layers`, in ascending order:
    `rows`, base64 of little-endian float32 values, and `lengths`. The server does not look for the file then; it only
    repeats its name in the answer.
    """

    model_config = ConfigDict(extra="forbid")

    file: str | None = Field(None, min_length=1, max_length=4096, pattern=r"^[^\x00]+$")
    key: str | None = Field(None, max_length=1000)
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    values: list[Annotated[float, Field(allow_inf_nan=False)]] | None = Field(None, min_length=1, max_length=1 << 17)
    rows: str | None = Field(None, min_length=1)
    lengths: list[float] | None = None
    layers: Annotated[Literal["all"] | list[int], BeforeValidator(Capture.check_layers)]
    operation: Literal["add", "ablate"]
    dose: float = Field(1.0, allow_inf_nan=False)
    phase: Literal["prompt", "generation", "all"] = "all"

    @model_validator(mode="after")
    def _one_direction(self) -> StreamEdit:
        if (self.file is None) == (self.values is None):
            raise ValueError("takes either file or values")
        if (self.file is None) != (self.key is None) or (self.file is None and self.sha256 is not None):
            raise ValueError("a file needs a key; key and sha256 are those of a file")
        if (self.rows is None) != (self.lengths is None) or (self.file is None and self.rows is not None):
            raise ValueError("rows and lengths go together, and are those of a file")
        if self.operation == "ablate" and self.dose != 1:
            raise ValueError("ablate takes the whole direction away: dose is 1")
        return self


class ContentPart(BaseModel):
    """A part of a message's content; only text is accepted."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="allow")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[ContentPart] | None = None

    def plain(self) -> dict[str, Any]:
        """The message as a chat template takes it."""
        content = self.content
        if isinstance(content, list):
            content = "".join(part.text for part in content)
        return {**(self.model_extra or {}), "role": self.role, "content": content or ""}


class PartSpans(BaseModel):
    """Spans of the parts of a conversation: (message, start, end), the latter two in characters of its content."""

    model_config = ConfigDict(extra="forbid")

    system: Characters | None = None
    prefix: Characters | None = None
    question: Characters | None = None


class Ndif(BaseModel):
    """Settings of the capture of one request; an absent field has the server's default.

    `save_dir` is a folder under the server's activation root, relative to it or absolute. With `push` it is also pushed
    to object storage, by a server that was started with `--push URL`. Named positions depend on where the parts of a
    conversation are. A request with token ids says so as `token_spans`: half-open spans of `system`, `prefix` and
    `question` in the prompt, which are the first `prompt_tokens` tokens, and of the `thought` in those after it; and,
    as `turns`, those of the answers of a conversation of several turns, by the number of the user's turn. Or it
    gives the `messages` and, in characters of their contents, `message_spans`; the server renders them with
    `chat_template_kwargs` and on the day `date` (default: 2024-07-26), and refuses tokens that differ from the prompt.
    In a chat request it knows the messages.

    `steering` edits the stream while the completion is generated, while a prompt is scored, and while activations are
    captured. Next to it, also if it is an empty list, they are only captured if one of the fields from `save_dir` to
    `dtype`, but for `request_id`, is there. `kl` is at how many tokens after the prompt to tell how far the edits move
    what the model predicts: the Kullback-Leibler divergences KL(edited ‖ unedited), in nats. Beside them the answer
    has, as `unedited`, the log-probabilities of all tokens after the prompt without the edits.
    """

    model_config = ConfigDict(extra="forbid")

    save_dir: str | None = Field(None, max_length=4096)
    push: bool = False
    request_id: RequestId | None = None
    layers: Layers = None
    hook_points: HookPoints = None
    positions: Positions = None
    dtype: Dtype | None = None
    messages: list[ChatMessage] | None = Field(None, max_length=MAX_MESSAGES)
    message_spans: PartSpans | None = None
    token_spans: dict[Literal["system", "prefix", "question", "thought"], tuple[TokenId, TokenId] | None] | None = None
    turns: dict[Annotated[int, Field(ge=1)], tuple[TokenId, TokenId] | None] | None = Field(
        None, max_length=MAX_MESSAGES
    )
    chat_template_kwargs: dict[str, Any] | None = None
    date: datetime.date | None = None
    prompt_tokens: int | None = Field(None, ge=1)
    steering: list[StreamEdit] = Field([], max_length=64)
    kl: int | None = Field(None, ge=1)

    @property
    def captures(self) -> bool:
        """Whether activations are to be captured."""
        asked = {"save_dir", "push", "layers", "hook_points", "positions", "dtype"} & self.model_fields_set
        return bool(asked) or "steering" not in self.model_fields_set

    @model_validator(mode="after")
    def _divergence_of_edits(self) -> Ndif:
        if self.kl is not None and (not self.steering or self.prompt_tokens is None):
            raise ValueError("kl compares edits after a prompt: it takes steering and prompt_tokens")
        return self

    def over(self, defaults: Ndif) -> Ndif:
        """These fields, and the defaults for those that are left out."""
        return defaults.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


class Interventions(BaseModel):
    """One client's defaults for the fields that an `ndif` leaves out, each of them as in an `ndif`."""

    model_config = ConfigDict(extra="forbid")

    layers: Layers = None
    hook_points: HookPoints = None
    positions: Positions = None
    dtype: Dtype | None = None


class StreamOptions(BaseModel):
    """Options of a stream. Obfuscation, which pads chunks to hide their length, is not done; it changes no answer."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = False
    include_obfuscation: bool | None = None


class Sampling(Unserved):
    """Fields of both completion routes."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(None, max_length=1000)
    temperature: float | None = Field(None, ge=0.0, le=2.0, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0.0, le=1.0, allow_inf_nan=False)
    n: int | None = Field(None, ge=1, le=MAX_CHOICES)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    ignore_eos: bool | None = False
    return_token_ids: bool | None = False
    ndif: Ndif | None = None

    @field_validator("stop")
    @classmethod
    def _stop(cls, stop: str | list[str] | None) -> list[str]:
        stops = [stop] if isinstance(stop, str) else list(stop or [])
        if len(stops) > MAX_STOPS:
            raise ValueError(f"at most {MAX_STOPS} stop strings are accepted")
        if any(len(text) > MAX_STOP_LENGTH for text in stops):
            raise ValueError(f"stop strings of at most {MAX_STOP_LENGTH} characters are accepted")
        return [text for text in stops if text]

    @classmethod
    def served_fields(cls) -> list[str]:
        """The fields that do something."""
        bases = [base for base in (Unserved, UnservedInChat, UnservedInText) if issubclass(cls, base)]
        unserved = {name for base in bases for name in base.model_fields}
        return [name for name in cls.model_fields if name not in unserved]

    @property
    def stops(self) -> list[str]:
        """The stop strings."""
        return self.stop if isinstance(self.stop, list) else []


class ChatRequest(Sampling, UnservedInChat):
    """Body of `/v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, max_length=MAX_MESSAGES)
    max_tokens: int | None = Field(None, ge=0)
    max_completion_tokens: int | None = Field(None, ge=0)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None

    @model_validator(mode="after")
    def _beginning(self) -> ChatRequest:
        continued = bool(self.continue_final_message)
        if continued is not (self.add_generation_prompt is False):
            raise ValueError("continue_final_message: true goes together with add_generation_prompt: false")
        if continued and self.messages[-1].role != "assistant":
            raise ValueError("continue_final_message: the last message is not the assistant's")
        return self

    @model_validator(mode="after")
    def _combinations(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs: only together with logprobs: true")
        if self.ndif is not None:
            for name in ("messages", "token_spans", "turns", "prompt_tokens", "chat_template_kwargs"):
                if getattr(self.ndif, name) is not None:
                    raise ValueError(f"ndif.{name}: only where the prompt is given as tokens, in /v1/completions")
            limit = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
            if self.ndif.steering and limit == 0 and not self.ndif.captures:
                raise ValueError("ndif.steering: with max_tokens 0 and nothing to capture, there is nothing to edit")
        return self


class CompletionRequest(Sampling, UnservedInText):
    """Body of `/v1/completions`."""

    prompt: (
        str
        | Annotated[list[TokenId], Field(min_length=1)]
        | Annotated[list[str], Field(min_length=1, max_length=MAX_PROMPTS)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    max_tokens: int | None = Field(None, ge=0)
    logprobs: int | None = Field(None, ge=0, le=20)
    echo: bool | None = False

    @model_validator(mode="after")
    def _combinations(self) -> CompletionRequest:
        if self.ndif is not None and self.ndif.messages is None:
            for name in ("message_spans", "chat_template_kwargs", "date"):
                if getattr(self.ndif, name) is not None:
                    raise ValueError(f"ndif.{name}: only together with ndif.messages")
        if self.ndif is not None and self.ndif.messages is not None and self.ndif.token_spans is not None:
            raise ValueError("ndif.token_spans: either these or ndif.messages")
        if self.ndif is not None and self.ndif.steering:
            scored = self.echo and self.logprobs is not None
            if self.max_tokens == 0 and not scored and not self.ndif.captures:
                raise ValueError(
                    "ndif.steering: with max_tokens 0 there is nothing to edit; score the prompt (echo, logprobs) or "
                    "capture it"
                )
            if self.ndif.kl is not None and not (scored and self.max_tokens == 0):
                raise ValueError("ndif.kl: only where a text is scored: with echo, logprobs and max_tokens 0")
            if self.ndif.kl is not None and (len(self.prompts) > 1 or (self.n or 1) > 1):
                raise ValueError("ndif.kl: only for one prompt with n = 1")
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, one or many."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]  # type: ignore[list-item]
        return list(self.prompt)  # type: ignore[arg-type]


def accepted_fields(body: type[BaseModel], place: Sequence[int | str]) -> list[str]:
    """Return the fields that a request accepts beside the last part of a place in its body, such as `("ndif", "x")`."""
    models = [body]
    for part in place[:-1]:
        fields = [model.model_fields[part] for model in models if isinstance(part, str) and part in model.model_fields]
        if fields:
            models = [model for field in fields for model in _models_of(field.annotation)]
    return [
        name
        for model in models
        for name in (model.served_fields() if issubclass(model, Sampling) else model.model_fields)
    ]


def _models_of(annotation: Any) -> Iterable[type[BaseModel]]:
    """The models in an annotation, such as `list[Edit] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_of(part)
