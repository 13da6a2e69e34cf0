"""How trajectories are generated."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from emoprobe.config.science.model import Auto
from emoprobe.config.section import Added, Extent, Hidden, Section, Text

# Arguments of the vLLM server that are not the user's.
OWN_FLAGS = {
    "--hf-token": "export it as HF_TOKEN, which servers inherit",
    "--api-key": "lists of processes would show it; each server gets a key of its own by its environment",
    "--host": "servers listen on the loopback interface; run others yourself and name them in workers.endpoints",
    "--port": "set workers.port",
    "--model": "set model.source",
    "--served-model-name": "it follows from model.source",
    "--dtype": "set model.dtype",
    "--trust-remote-code": "code that comes with a model is not run",
}


class Engine(Section):
    """Settings of vLLM that can change an answer."""

    max_model_len: Auto | Annotated[int, Field(ge=16)] | None = Field(
        "auto",
        description="Longest prompt + completion; `auto`: what prompts and `max_tokens` need; null: the model's own.",
    )
    tensor_parallel: Auto | Annotated[int, Field(ge=1)] = Field(
        "auto",
        description="GPUs that one server is spread over; `auto`: as few as the model needs. Decided once and kept in "
        "`model.json`.",
    )
    compile: bool | None = Field(
        None, description="Whether vLLM compiles the model: a slow first start, faster decoding; null: on a GPU only."
    )
    batch_invariant: Annotated[Auto | bool, Added] = Field(
        "auto",
        description="Kernels whose answers do not depend on the batch, slower on a GPU; `auto`: where GPU "
        "and model have them; true: refuse to start where they have not.",
    )
    extra_args: Annotated[list[str], Hidden] = Field(
        default_factory=list, description="Further arguments of the vLLM server, besides those that other keys set."
    )

    def content(self) -> dict[str, Any]:
        """As for any section; a `max_model_len` of `auto` changes no answer, as it cuts nothing off."""
        found = super().content()
        return {key: value for key, value in found.items() if (key, value) != ("max_model_len", "auto")}

    @field_validator("extra_args")
    @classmethod
    def _extra_args(cls, arguments: list[str]) -> list[str]:
        for argument in arguments:
            flag = argument.partition("=")[0].replace("_", "-")
            if flag in OWN_FLAGS:
                raise ValueError(f"may not hold {flag}: {OWN_FLAGS[flag]}")
        return arguments


Backend = Literal["vllm", "nnsight", "api"]
# Fields of a request to an API that other keys decide, and ones whose responses nothing here reads.
OWN_FIELDS = ("model", "messages", "stream", "stream_options", "n", "logprobs", "tools")
LIMITS = ("max_tokens", "max_completion_tokens")


def check_api_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields of a request to an API, which must leave a completion its limit.

    Raises:
        ValueError: one is set by Emoprobe itself, or a completion would have no limit.
    """
    if taken := [name for name in fields if name in OWN_FIELDS]:
        raise ValueError(f"may not hold {', '.join(taken)}, which emoprobe sets itself")
    limits = [fields[name] for name in LIMITS if fields.get(name) is not None]
    if any(type(limit) is not int or limit < 1 for limit in limits):
        raise ValueError(f"{' and '.join(LIMITS)} must be numbers of tokens above 0")
    if "max_tokens" in fields and not limits:
        raise ValueError("without max_tokens a completion has no limit; add max_completion_tokens: N")
    return fields


# Variables of chat templates that `generation.thinking` sets.
SWITCHES = ("enable_thinking", "thinking")


class ThinkingBudget(Section):
    """A thought of limited length."""

    budget: int = Field(ge=1, description="Longest thought, in tokens; then it is closed and the answer begins.")


class Generation(Section):
    """Generation of trajectories."""

    backend: Backend = Field(
        "vllm",
        description="`nnsight` generates and captures in one request, slower. `api` sends messages to any "
        "OpenAI-compatible API in `workers.endpoints`: no token ids, no activations, no pinned weights.",
    )
    max_tokens: int = Field(256, ge=1, description="Longest completion, in tokens.")
    temperature: float = Field(0.0, ge=0.0, le=2.0, description="0 is greedy decoding.")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Nucleus sampling; 1 keeps every token.")
    stop: list[Text] = Field(default_factory=list, description="Strings that end a completion.")
    chat_template: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="Arguments of the chat template, such as `enable_thinking: false`."
    )
    thinking: Annotated[Literal["off", "on"] | ThinkingBudget | None, Added] = Field(
        None,
        description="Whether the model thinks before it answers: `off`, `on`, or `{budget: N}` for at most N tokens; "
        "null: as its chat template has it.",
    )
    draws: Annotated[int, Extent] = Field(
        1,
        ge=1,
        le=1000,
        description="Completions of each pair, with sampled decoding; further ones lie in `SAMPLE-d2`, `-d3` …",
    )
    allowed_failures: Annotated[float, Extent] = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="Share of the pairs that may go without an answer; each becomes a record of its error.",
    )
    api_request: Annotated[dict[str, bool | int | float | str | dict[str, Any] | None], Added] = Field(
        default_factory=dict,
        description="With `backend: api`, fields of the request besides those that other keys set, such as "
        "`reasoning_effort: low`; null leaves a field out that the API does not know, such as `seed: null`.",
    )
    engine: Engine = Field(default_factory=lambda: Engine(), description="How vLLM computes.")

    @field_validator("thinking", mode="before")
    @classmethod
    def _thinking(cls, thinking: Any) -> Any:
        """Accept a word, a budget, or a truth value, as which YAML reads `off` and `on`."""
        if isinstance(thinking, bool):
            return "on" if thinking else "off"
        budget = thinking.get("budget") if isinstance(thinking, dict) else None
        known = thinking is None or isinstance(thinking, ThinkingBudget) or thinking in ("off", "on")
        if not known and not (type(budget) is int and budget > 0 and thinking.keys() == {"budget"}):
            raise ValueError("must be off, on, or {budget: N} with a number of tokens above 0")
        return thinking

    @field_validator("api_request")
    @classmethod
    def _api_request(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return check_api_fields(fields)

    @model_validator(mode="after")
    def _api_fields_for_an_api(self) -> Generation:
        if self.api_request and self.backend != "api":
            raise ValueError("api_request is for backend: api; remove one of the two")
        return self

    @model_validator(mode="after")
    def _one_switch(self) -> Generation:
        set_twice = [name for name in SWITCHES if name in self.chat_template]
        if self.thinking is not None and set_twice:
            raise ValueError(f"thinking sets chat_template.{set_twice[0]} already; remove one of the two")
        return self

    @model_validator(mode="after")
    def _room_for_an_answer(self) -> Generation:
        if self.thinking_budget is not None and self.thinking_budget >= self.max_tokens:
            raise ValueError(
                f"thinking.budget = {self.thinking_budget} leaves no room for an answer; set max_tokens, thought and "
                "answer together, above it"
            )
        return self

    @property
    def thinking_mode(self) -> Literal["off", "on"] | None:
        """Whether thinking is switched on or off; None: as the chat template has it."""
        return "on" if isinstance(self.thinking, ThinkingBudget) else self.thinking

    @property
    def thinking_budget(self) -> int | None:
        """The longest thought, in tokens; None where it has no limit of its own."""
        return self.thinking.budget if isinstance(self.thinking, ThinkingBudget) else None

    @model_validator(mode="after")
    def _draws(self) -> Generation:
        if self.draws > 1 and self.temperature == 0.0:
            raise ValueError("draws above 1 need a temperature above 0: greedy draws are copies")
        return self
