"""The experiment's configuration: every key, its type, its default and what it means.

`config/schema.json` and the table in `config/README.md` are generated from these classes.
"""

from __future__ import annotations

import keyword
import re
from string import Formatter
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from scripts.lib.config_section import Section, Text
from scripts.lib.config_workers import Workers
from scripts.lib.names import CONTROL, check_name

Placement = Literal["user_prefix", "user_suffix", "system_prefix", "system_suffix"]
Valence = Literal["negative", "neutral", "positive"]
Dtype = Literal["float32", "bfloat16", "float16"]
NamedPosition = Literal["last_prompt", "prefix_mean", "response_first", "response_mean", "response_last"]

HOOK_POINT = r"^(?:[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*)?\.?(?:input|output)$"


class Experiment(Section):
    """What the run is called and the seed that everything random derives from."""

    name: str = Field("pilot", description="Folder under `results/`; letters, digits, `_` and `-`.")
    seed: int = Field(42, ge=0, le=2**31 - 1, description="Draws the samples and seeds every request.")

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        return check_name(name)


class Model(Section):
    """The language model."""

    source: Text = Field(
        "smollm2-135m-instruct",
        description="`smollm2-135m-instruct` (embedded), a Hugging Face id, or a local directory "
        "(write `./name` for a relative one).",
    )
    revision: str | None = Field(
        None, description="Branch, tag or commit of a Hugging Face id; resolved once and pinned in `metadata.json`."
    )
    dtype: Dtype = Field("float32", description="Of weights and computation. On a CPU only float32 is reproducible.")


class Dataset(Section):
    """Where the questions come from and how many are drawn."""

    source: Text = Field(
        "gsm_symbolic",
        description="`gsm_symbolic` (embedded), `gsm8k` (Hugging Face), or a `.jsonl`/`.parquet` file.",
    )
    split: Text = Field("test", description="Split of `gsm8k`; other sources have one split and ignore it.")
    samples: int = Field(8, ge=1, le=999_999, description="The first so many of one seeded permutation.")
    question: Text = Field("question", description="Column of the question in a file.")
    answer: Text = Field("answer", description="Column of the answer in a file.")
    id_prefix: str = Field("gsm8k", description="Sample ids are `{id_prefix}_0001` and so on.")

    @field_validator("id_prefix")
    @classmethod
    def _prefix(cls, prefix: str) -> str:
        return check_name(prefix)


class Prompt(Section):
    """The messages that every variant starts from."""

    system: str | None = Field(
        "You are a careful assistant who solves math word problems.",
        description="System message; null for none.",
    )
    template: Text = Field(
        '{question}\n\nThink step by step, then write the final answer as "Answer: [number]".',
        description="User message; `{question}` stands for the question, `{{` and `}}` for braces.",
    )

    @field_validator("template")
    @classmethod
    def _template(cls, template: str) -> str:
        try:
            fields = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
        except ValueError as error:
            raise ValueError(f"is no format string ({error}); write {{{{ and }}}} for literal braces") from None
        if set(fields) != {"question"}:
            found = ", ".join(f"{{{name}}}" for name in fields) or "none"
            raise ValueError(
                f"must contain the placeholder {{question}} and no other (found: {found}); "
                "write {{ and }} for literal braces"
            )
        return template


class Variant(Section):
    """One way of opening the conversation. With no key at all, messages stay as they are."""

    text: Text | None = Field(None, description="The emotional text.")
    texts: Annotated[list[Text], Field(min_length=1)] | None = Field(
        None, description="Paraphrases of it, assigned by sample index in turn."
    )
    placement: Placement = Field("user_prefix", description="Where the text goes.")
    transform: str | None = Field(
        None, description="`module:function` instead of a text: takes and returns a list of messages."
    )
    valence: Valence | None = Field(None, description="Emotional valence of the text, a target of the probes.")

    @field_validator("text")
    @classmethod
    def _text(cls, text: str | None) -> str | None:
        if text is not None and not text.strip():
            raise ValueError("must hold more than white space")
        return text

    @field_validator("texts")
    @classmethod
    def _texts(cls, texts: list[str] | None) -> list[str] | None:
        if texts is not None and not all(text.strip() for text in texts):
            raise ValueError("every text must hold more than white space")
        return texts

    @field_validator("transform")
    @classmethod
    def _transform(cls, transform: str | None) -> str | None:
        if transform is None:
            return None
        module, colon, function = transform.partition(":")
        parts = [*module.split("."), *function.split(".")]
        if not colon or not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
            raise ValueError("must name a function as `module:function`")
        return transform

    @model_validator(mode="after")
    def _one_way(self) -> Variant:
        given = [key for key in ("text", "texts", "transform") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"has {' and '.join(given)}; give one of text, texts, transform")
        return self

    @property
    def paraphrases(self) -> list[str]:
        """The texts of this variant; empty where it adds none."""
        return self.texts if self.texts is not None else [self.text] if self.text is not None else []


class Generation(Section):
    """How trajectories are generated."""

    backend: Literal["vllm", "nnsight"] = Field(
        "vllm", description="`nnsight` generates and captures in one request, slower."
    )
    max_tokens: int = Field(256, ge=1, description="Longest completion, in tokens.")
    temperature: float = Field(0.0, ge=0.0, le=2.0, description="0 is greedy decoding.")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Nucleus sampling; 1 keeps every token.")
    stop: list[Text] = Field(default_factory=list, description="Strings that end a completion.")
    chat_template: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="Arguments of the chat template, such as `enable_thinking: false`."
    )
    timeout: float = Field(600.0, gt=0, description="Seconds that one attempt at a request may take.")


class Capture(Section):
    """Which activations are captured."""

    enabled: bool = Field(True, description="false: no activations, no probes.")
    layers: Literal["all"] | list[int] = Field(
        "all", description="`all`, or a list; negative indices count from the end."
    )
    hook_points: list[str] = Field(
        ["input_layernorm.output", "post_attention_layernorm.output"],
        min_length=1,
        description="Module path relative to a decoder layer plus `.input` or `.output`; "
        "`.input` and `.output` alone are the layer's own (the residual stream).",
    )
    positions: Literal["all"] | list[int | str] = Field(
        ["last_prompt", "prefix_mean", "response_first", "response_mean", "response_last"],
        description="`all`, or a list of named positions and token indices.",
    )
    dtype: Dtype = Field("float16", description="Of the stored activations.")
    batch_tokens: int = Field(4096, ge=1, description="Token budget of one forward pass of the capture server.")
    memory_gib: float = Field(4.0, gt=0, description="Bound on captured activations that wait for the disk, GiB.")

    @field_validator("layers", mode="before")
    @classmethod
    def check_layers(cls, layers: Any) -> Any:
        """`all`, or a list of different indices.

        Raises:
            ValueError: it is something else.
        """
        if layers == "all":
            return layers
        if not isinstance(layers, list) or not layers or not all(type(layer) is int for layer in layers):
            raise ValueError("must be `all` or a list of layer indices")
        if len(set(layers)) != len(layers):
            raise ValueError("must be `all` or a list of different layer indices")
        return layers

    @field_validator("hook_points")
    @classmethod
    def _hook_points(cls, hook_points: list[str]) -> list[str]:
        for point in hook_points:
            if not re.fullmatch(HOOK_POINT, point):
                raise ValueError(f"{point!r} is no module path that ends in .input or .output")
        if len(set(hook_points)) != len(hook_points):
            raise ValueError("names a hook point twice")
        return hook_points

    @field_validator("positions", mode="before")
    @classmethod
    def check_positions(cls, positions: Any) -> Any:
        """`all`, or a list of different names and indices.

        Raises:
            ValueError: it is something else.
        """
        if positions == "all":
            return positions
        names = get_args(NamedPosition)
        if (
            not isinstance(positions, list)
            or not positions
            or not all(type(position) is int or position in names for position in positions)
            or len(set(positions)) != len(positions)
        ):
            raise ValueError(f"must be `all` or a list of different token indices and of {', '.join(names)}")
        return positions


class Probes(Section):
    """The linear probes."""

    targets: list[Literal["variant", "valence", "correct"]] = Field(
        ["variant", "valence", "correct"], min_length=1, description="What is read off the activations."
    )
    folds: int = Field(5, ge=2, le=100, description="Outer folds, stratified, grouped by sample.")
    inner_folds: int = Field(3, ge=2, le=100, description="Folds inside a training set that choose the strength.")
    strengths: list[float] = Field(
        [1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0],
        min_length=1,
        description="Inverse strengths of the L2 penalty (`C`) to choose from.",
    )
    permutations: int = Field(10, ge=0, description="Label permutations of the permutation baseline.")
    bootstrap: int = Field(1000, ge=100, description="Resamples of every bootstrap interval.")
    min_per_class: int = Field(4, ge=2, description="Samples that each class needs, or the target is skipped.")

    @field_validator("strengths")
    @classmethod
    def _strengths(cls, strengths: list[float]) -> list[float]:
        if any(strength <= 0 for strength in strengths):
            raise ValueError("every strength must be greater than 0")
        return sorted(strengths)


class Config(Section):
    """One experiment."""

    experiment: Experiment = Field(default_factory=Experiment)
    model: Model = Field(default_factory=Model)
    dataset: Dataset = Field(default_factory=Dataset)
    prompt: Prompt = Field(default_factory=Prompt)
    variants: dict[str, Variant] = Field(
        default_factory=lambda: {CONTROL: Variant()},
        description="Name → variant; one of them must be `control`, what the others are compared with.",
    )
    generation: Generation = Field(default_factory=Generation)
    workers: Workers = Field(default_factory=Workers)
    capture: Capture = Field(default_factory=Capture)
    probes: Probes = Field(default_factory=Probes)

    @field_validator("variants", mode="before")
    @classmethod
    def _null_variants(cls, variants: Any) -> Any:
        """`control:` with nothing after it means `control: {}`."""
        if isinstance(variants, dict):
            return {name: {} if variant is None else variant for name, variant in variants.items()}
        return variants

    @field_validator("variants")
    @classmethod
    def _variants(cls, variants: dict[str, Variant]) -> dict[str, Variant]:
        for name in variants:
            check_name(name)
        if CONTROL not in variants:
            raise ValueError(f"needs a variant called {CONTROL}: the others are compared with it")
        folded = [name.casefold() for name in variants]
        for name in variants:
            if folded.count(name.casefold()) > 1:
                raise ValueError(f"{name!r} differs from another variant in case only")
        return variants

    @model_validator(mode="after")
    def _inline_needs_capture(self) -> Config:
        if self.generation.backend == "nnsight" and self.workers.endpoints:
            raise ValueError("generation.backend nnsight uses workers.capture_endpoints, not workers.endpoints")
        return self

    def resolved(self) -> dict[str, Any]:
        """Every key with its value, defaults written out, in plain JSON types."""
        return self.model_dump(mode="json")
