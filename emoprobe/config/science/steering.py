"""What the model is steered along, how, and how far."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from emoprobe.config.names import check_name
from emoprobe.config.science.capture import NamedPosition
from emoprobe.config.section import Extent, Section, Text

Operation = Literal["add", "ablate"]
Phase = Literal["prompt", "generation", "all"]
Method = Literal["diff_means", "probe"]
# The folder of the trajectories without an edit, so no direction can have this name.
NONE = "none"
MIDDLE = "middle"


class Fit(Section):
    """What the directions are fitted on. Another value makes all of them, and what was steered along them, anew."""

    position: NamedPosition = Field(
        "last_prompt", description="Captured position that directions are fitted at, in the part `resid_post`."
    )
    questions: int | None = Field(
        None, ge=2, description="Only the first so many questions of the fitting half; null: all of it."
    )


class DirectionFile(Section):
    """A direction out of a safetensors file."""

    path: Text = Field(description="The file; a relative path is taken from where the workflow is started.")
    key: Text = Field("direction", description="Tensor: a vector for all layers, or a row for each layer.")
    family: Literal["file", "feature"] = Field(
        "file", description="What the tables call it; verdicts are corrected within a family."
    )
    row: int | None = Field(
        None, ge=0, description="Where the tensor holds many vectors, such as a decoder's features: which of them."
    )


class Controls(Section):
    """Directions that should do nothing in particular: what an effect is compared with."""

    random: Annotated[int, Extent] = Field(
        39, ge=0, le=9999, description="Random directions, as long as the others; with 39 of them p can reach 0.025."
    )
    shuffled: Annotated[int, Extent] = Field(
        20,
        ge=0,
        le=9999,
        description="Directions of each tone with tone and reference exchanged in half the questions: what a push does "
        "where activations vary. With 20 a verdict is within reach for any number of tones.",
    )
    orthogonal: Annotated[bool, Extent] = Field(
        True, description="Each tone's direction without its part along what any text adds (`filler` to `control`)."
    )
    questions: Annotated[int | None, Extent] = Field(
        None,
        ge=1,
        description="Only the first so many steered questions; null: all. Below 8 there is no verdict.",
    )
    doses: Annotated[list[float] | None, Extent] = Field(
        None, min_length=1, description="Only these of the doses; null: all. A verdict is on doses that controls have."
    )


class SteeringScores(Section):
    """What is read off forward passes over a steered answer."""

    gold: Text = Field(
        "{answer}",
        description="What is forced after the prompt for log p(gold); `{answer}` is the gold answer. Special tokens "
        "may be written out, such as an end of turn.",
    )
    kl_tokens: int = Field(
        8, ge=1, le=1000, description="First tokens of the answer over which the divergence is taken."
    )

    @field_validator("gold")
    @classmethod
    def _gold(cls, gold: str) -> str:
        if "{answer}" not in gold:
            raise ValueError("must contain the placeholder {answer}")
        return gold


class Coherence(Section):
    """Up to where a steered text counts as coherent: only there can an effect be a finding."""

    max_perplexity: float = Field(
        2.0,
        gt=1.0,
        description="Most that the perplexity may be, as a multiple of the unsteered text's: geometric mean over "
        "questions.",
    )
    max_repetition: float = Field(
        0.1, ge=0.0, lt=1.0, description="Most that the mean repetition may exceed that of the unsteered texts."
    )


class Steering(Section):
    """Trajectories under an edit of the residual stream. All keys here decide which there are, the sections what they
    hold.
    """

    enabled: Annotated[bool, Extent] = Field(False, description="true: steered trajectories, their tables and figures.")
    tones: Annotated[list[str] | None, Extent] = Field(
        None, description="Variants that have a direction; null: all with a negative or positive valence."
    )
    methods: Annotated[list[Method], Extent] = Field(
        ["diff_means"],
        min_length=1,
        description="`diff_means`: mean of the tone minus that of the primary reference; `probe`: weights of the "
        "discriminant between them, as a comparison.",
    )
    files: Annotated[dict[str, DirectionFile], Extent] = Field(
        default_factory=dict, description="Name → a direction from elsewhere, such as a feature of an autoencoder."
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
        ["all"], min_length=1, description="Tokens that are edited: of the `prompt`, of the `generation`, or `all`."
    )
    layers: Annotated[Literal["middle"] | list[int | list[int]], Extent] = Field(
        "middle",
        description="Layers, each steered alone, or several at once where a list stands for one; `middle` is the one "
        "at half depth.",
    )
    doses: Annotated[list[float], Extent] = Field(
        [-0.4, -0.2, 0.0, 0.2, 0.4],
        min_length=1,
        description="Lengths of what is added, as multiples of the median norm of the stream; 0 is the unsteered "
        "baseline, which is always there.",
    )
    variants: Annotated[list[str], Extent] = Field(
        ["control"], min_length=1, description="Variants that are steered by `add`."
    )
    questions: Annotated[int | None, Extent] = Field(
        None, ge=1, description="Only the first so many questions of the steered half; null: all of it."
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
        if not sets or not all(found and list(found) == sorted(set(found)) and found[0] >= 0 for found in sets):
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
            raise ValueError("has neither tones nor files, so nothing to steer along")
        return self


def layer_sets(layers: Literal["middle"] | list[int | list[int]]) -> list[tuple[int, ...]]:
    """The layers that are edited together, one entry a condition; none where the depth of the model decides."""
    entries = [] if isinstance(layers, str) else layers
    return [tuple(entry) if isinstance(entry, list) else (entry,) for entry in entries]


def _once(values: Any) -> Any:
    if values is not None and any(value in values[:place] for place, value in enumerate(values)):
        raise ValueError("names an entry twice")
    return values
