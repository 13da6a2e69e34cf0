"""Steering: directions, operations, doses and scores."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from emoprobe.config.science.capture import NamedPosition
from emoprobe.config.section import Extent, Section, Text, check_name

Operation = Literal["add", "ablate"]
Phase = Literal["prompt", "generation", "all"]
Method = Literal["diff_means", "probe"]
# The folder of the trajectories without an edit, so no direction can have this name.
NONE = "none"
MIDDLE = "middle"


class Fit(Section):
    """Data that directions are fitted on. A change recomputes all directions and the trajectories steered with them."""

    position: NamedPosition = Field(
        "last_prompt", description="Captured position that directions are fitted at, in the part `resid_post`."
    )
    questions: int | None = Field(
        None, ge=2, description="Number of questions, from the first of the fitting half; null: all."
    )


class DirectionFile(Section):
    """A direction from a safetensors file."""

    path: Text = Field(description="Path of the file; relative paths start at the working directory of the workflow.")
    key: Text = Field(
        "direction", description="Name of the tensor: a vector for all layers, or one row for each layer."
    )
    family: Literal["file", "feature"] = Field(
        "file", description="Family of the direction in the tables; verdicts are corrected within a family."
    )
    row: int | None = Field(
        None, ge=0, description="Row of the vector, where the tensor holds many, such as the features of a decoder."
    )


class Controls(Section):
    """Control directions, which give the null distribution of an effect."""

    random: Annotated[int, Extent] = Field(
        39,
        ge=0,
        le=9999,
        description="Number of random directions, with the norm of the others; with 39, p can reach 0.025.",
    )
    shuffled: Annotated[int, Extent] = Field(
        20,
        ge=0,
        le=9999,
        description="Number of directions of each tone with tone and reference exchanged in half the texts: a push "
        "along the variation of the activations. With 20, a verdict is possible for any number of tones; it takes 24 "
        "texts in the fitting half.",
    )
    orthogonal: Annotated[bool, Extent] = Field(
        True,
        description="Whether to steer along each tone's direction without its component along the effect of any "
        "text (`filler` minus `control`).",
    )
    questions: Annotated[int | None, Extent] = Field(
        None,
        ge=1,
        description="Number of steered questions, from the first; null: all. Below 8 there is no verdict.",
    )
    doses: Annotated[list[float] | None, Extent] = Field(
        None,
        min_length=1,
        description="Doses of the controls; null: all. Verdicts use only doses that the controls have.",
    )


class SteeringScores(Section):
    """Scores from forward passes over a steered answer."""

    gold: Text = Field(
        "{answer}",
        description="Text forced after the prompt for log p(gold); `{answer}` is the gold answer. It may "
        "contain special "
        "tokens, such as an end of turn.",
    )
    kl_tokens: int = Field(
        8, ge=1, le=1000, description="Number of tokens, from the first of the answer, for the KL divergence."
    )

    @field_validator("gold")
    @classmethod
    def _gold(cls, gold: str) -> str:
        if "{answer}" not in gold:
            raise ValueError("must contain the placeholder {answer}")
        return gold


class Coherence(Section):
    """Limits within which steered text counts as coherent. Effects beyond them give no verdict."""

    max_perplexity: float = Field(
        2.0,
        gt=1.0,
        description="Maximum perplexity, as a multiple of that of the unsteered text (geometric mean over questions).",
    )
    max_repetition: float = Field(
        0.1, ge=0.0, lt=1.0, description="Maximum excess of the mean repetition over that of the unsteered texts."
    )


class Steering(Section):
    """Trajectories generated under an edit of the residual stream.

    The keys of this section decide which trajectories exist; those of its subsections decide their content.
    """

    enabled: Annotated[bool, Extent] = Field(
        False, description="Whether to make steered trajectories, their tables and figures."
    )
    tones: Annotated[list[str] | None, Extent] = Field(
        None, description="Variants to fit a direction for; null: all with a negative or positive valence."
    )
    methods: Annotated[list[Method], Extent] = Field(
        ["diff_means"],
        min_length=1,
        description="`diff_means`: mean of the tone minus that of the primary reference; `probe`: weights of the "
        "discriminant between them, described as a comparison without a verdict.",
    )
    files: Annotated[dict[str, DirectionFile], Extent] = Field(
        default_factory=dict, description="Name → direction from a file, such as a feature of an autoencoder."
    )
    fit: Fit = Field(default_factory=Fit)
    controls: Controls = Field(default_factory=Controls)
    operations: Annotated[list[Operation], Extent] = Field(
        ["add", "ablate"],
        min_length=1,
        description="`add` a multiple of the direction, in `variants`; `ablate` each tone's direction, in the tone and "
        "in the reference.",
    )
    phases: Annotated[list[Phase], Extent] = Field(
        ["all"], min_length=1, description="Tokens to edit: those of the `prompt`, of the `generation`, or `all`."
    )
    layers: Annotated[Literal["middle"] | list[int | list[int]], Extent] = Field(
        "middle",
        description="Layers, each steered alone; a list in place of a layer steers several at once. `middle`: "
        "the layer "
        "at half depth.",
    )
    doses: Annotated[list[float], Extent] = Field(
        [-0.4, -0.2, 0.0, 0.2, 0.4],
        min_length=1,
        description="Norms of the added vector, as multiples of the median norm of the residual stream; 0 is "
        "the unsteered "
        "baseline, which is always included.",
    )
    variants: Annotated[list[str], Extent] = Field(["control"], min_length=1, description="Variants to steer by `add`.")
    questions: Annotated[int | None, Extent] = Field(
        None, ge=1, description="Number of questions, from the first of the steered half; null: all."
    )
    scores: SteeringScores = Field(default_factory=SteeringScores)
    coherence: Coherence = Field(default_factory=Coherence)

    @field_validator("files")
    @classmethod
    def _files(cls, files: dict[str, DirectionFile]) -> dict[str, DirectionFile]:
        for name in files:
            check_name(name)
        return files

    @field_validator("layers")
    @classmethod
    def _layers(cls, layers: Any) -> Any:
        if layers == MIDDLE:
            return layers
        sets = layer_sets(layers)
        if not sets or not all(
            layer_set and list(layer_set) == sorted(set(layer_set)) and layer_set[0] >= 0 for layer_set in sets
        ):
            raise ValueError("must be `middle`, or a list of layers from 0 and of ascending lists of them")
        return _once(layers)

    @field_validator("doses")
    @classmethod
    def _doses(cls, doses: list[float]) -> list[float]:
        for dose in doses:
            if not (dose == 0 or 0.001 <= abs(dose) <= 1000) or float(f"{dose:g}") != dose:
                raise ValueError(f"{dose!r} must be 0, or from 0.001 to 1000 on either side with at most six digits")
        return list(_once(doses))

    @field_validator("tones", "methods", "operations", "phases", "variants")
    @classmethod
    def _different(cls, values: Any) -> Any:
        return _once(values)

    @model_validator(mode="after")
    def _doses_of_controls(self) -> Steering:
        more = [dose for dose in self.controls.doses or [] if dose not in self.doses]
        if more:
            raise ValueError(f"controls.doses names {', '.join(map(str, more))}, which is none of the doses")
        return self

    @model_validator(mode="after")
    def _something(self) -> Steering:
        if self.tones == [] and not self.files:
            raise ValueError("has neither tones nor files; name a direction to steer along")
        return self


def layer_sets(layers: Literal["middle"] | list[int | list[int]]) -> list[tuple[int, ...]]:
    """Return the layers that each condition edits together; empty for `middle`, which depends on the model's depth."""
    entries = [] if isinstance(layers, str) else layers
    return [tuple(entry) if isinstance(entry, list) else (entry,) for entry in entries]


def _once(values: Any) -> Any:
    if values is not None and any(value in values[:place] for place, value in enumerate(values)):
        raise ValueError("names an entry twice")
    return values
