"""The grader `judge`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from emoprobe.config.science.generation import check_api_fields
from emoprobe.config.science.model import Model
from emoprobe.config.science.outcome_grader import MOST_CATEGORIES, TypedGrader, Value
from emoprobe.config.section import Added, Extent, Hidden, Text, check_url, check_variable
from emoprobe.text import hashed_number

_RUBRICS = Path(__file__).with_name("rubrics.yaml")
# A rubric in words has a space, or another script: this is a name.
_NAME = re.compile("[a-z][a-z0-9_-]*")


@cache
def ready_rubrics() -> dict[str, dict[str, Any]]:
    """Return the rubrics that a judge may name: each has its `text` and the type of its value."""
    rubrics: dict[str, dict[str, Any]] = yaml.safe_load(_RUBRICS.read_text(encoding="utf-8"))
    return rubrics


class JudgeGrader(TypedGrader):
    """The grader `judge`: a model grades by a rubric, blind to the variant, behind an API or on servers of the run."""

    name: Literal["judge"] = Field("judge", description="Name of the grader.")
    rubric: Text = Field(
        description="Instruction for the judge, applied to every answer; it must not name a tone. A text of yours, or "
        "the name of a ready rubric: `refusal`, `apology`, `hedging`, `self_correction`, `sentiment` or `guess`."
    )
    model: Text = Field(
        description="Model that judges: with `endpoints` the API's name of it, whose price is looked up in `workers`; "
        "without them as `model.source`, and the run starts vLLM servers of it after the answers."
    )
    revision: Annotated[str | None, Added] = Field(
        None, description="Without `endpoints`: branch, tag or commit of a Hugging Face id."
    )
    endpoints: Annotated[list[str], Hidden, Extent] = Field(
        default_factory=list,
        description="Base URLs of an OpenAI-compatible API (`https://host/v1`); empty: servers of the run.",
    )
    api_key_env: Annotated[str | None, Hidden, Extent] = Field(
        None, description="Environment variable that holds the API's key; the key itself never goes here."
    )
    compare_with: Annotated[Text | None, Added] = Field(
        None,
        description="Reference, such as `filler`, whose answer to the same question each answer is compared with, in "
        "both orders: the rubric then says which of two answers is better. null: each answer is graded alone.",
    )
    guess: Annotated[bool, Added] = Field(
        False,
        description="Whether the judge guesses the variant of each answer, among the names of all (`rubric: guess`). "
        "The report says how often it is right; no contrast is tested.",
    )
    trait: Annotated[Text | None, Extent] = Field(
        None,
        description="Name of what is judged. Judges with the same one are compared with each other (Krippendorff's α); "
        "null counts as a name.",
    )
    labels: Annotated[Text | None, Extent] = Field(
        None,
        description="CSV file with labels by people, which correct the judge: `id` (of `judgements/to_label.csv`) and "
        "`value`, or `variant`, `sample` and `value`. Without it differences are described and not tested.",
    )
    max_tokens: int = Field(512, ge=16, description="Most tokens of a reply.")
    temperature: float = Field(0.0, ge=0.0, description="Sampling temperature of the judge.")
    api_request: dict[str, Any] = Field(
        default_factory=dict,
        description="Fields to add to each request or to replace; null leaves one out.",
    )

    @model_validator(mode="before")
    @classmethod
    def _ready(cls, values: Any) -> Any:
        """Put text and values of a ready rubric in the place of its name."""
        name = values.get("rubric") if isinstance(values, Mapping) else None
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            return values
        if name not in ready_rubrics():
            raise ValueError(f"rubric {name!r} is none of {', '.join(ready_rubrics())}; name one, or write a text")
        rubric = ready_rubrics()[name]
        if values.get("compare_with") is not None:
            raise ValueError(f"rubric {name} is for one answer; with compare_with write which of two answers is better")
        scale = {key: value for key, value in rubric.items() if key != "text"}
        given = {key: values[key] for key in ("value", "range", "categories", "guess") if values.get(key) is not None}
        if given and given != scale:
            raise ValueError(f"rubric {name} has values of its own; remove {', '.join(given)}")
        return {"label": f"judge_{name}", **values, **scale, "rubric": rubric["text"]}

    @field_validator("endpoints")
    @classmethod
    def _endpoints(cls, endpoints: list[str]) -> list[str]:
        return [check_url(url) for url in endpoints]

    @field_validator("api_key_env")
    @classmethod
    def _api_key_env(cls, name: str | None) -> str | None:
        return None if name is None else check_variable(name)

    @field_validator("api_request")
    @classmethod
    def _api_request(cls, fields: dict[str, Any]) -> dict[str, Any]:
        return check_api_fields(fields)

    @model_validator(mode="after")
    def _complete(self) -> JudgeGrader:
        if self.api_key_env is not None and not self.endpoints:
            raise ValueError("api_key_env is for endpoints, which are missing; name them, or remove it")
        if self.revision is not None and self.endpoints:
            raise ValueError("revision is for a model that the run serves; remove it, or endpoints")
        if self.value == "number" and self.range is None:
            raise ValueError("a judge that returns a number needs range, which its replies are checked against")
        for key in ("compare_with", "labels", "margin") if self.guess else ():
            if getattr(self, key) is not None:
                raise ValueError(f"a guess of the variant is no outcome; remove {key}")
        if self.guess and self.value == "number":
            raise ValueError("a guess of the variant has no number; remove value and range")
        if self.compare_with is not None:
            if self.value != "binary":
                raise ValueError(f"compare_with makes one of two answers the value; remove value: {self.value}")
            if self.labels is not None:
                raise ValueError("labels are of answers, and compare_with judges pairs of them; remove one of the two")
            if self.margin is not None:
                raise ValueError(
                    "margin is for equivalence, which is not tested with compare_with, as a judge that decides by the "
                    "order alone would show it; remove margin"
                )
        return self

    @property
    def type(self) -> Value:
        """Type of the value; a preference is the share of both orders in which the variant's answer is preferred."""
        return self.value if self.compare_with is None else "preference"

    @property
    def values_in(self) -> tuple[float, float] | None:
        """Smallest and largest number that there can be; None: there is no limit."""
        return super().values_in if self.compare_with is None else (0.0, 1.0)

    @property
    def takes_labels(self) -> bool:
        """Whether labels of answers by people can correct the judge."""
        return self.compare_with is None and not self.guess

    @property
    def sides(self) -> int:
        """Number of answers in a request: two are compared, in two requests, one for each order."""
        return 1 if self.compare_with is None else 2

    def judged(self, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Return the trajectories that are judged: all but those which others are compared with.

        Formats of the prompt are no tones to guess.
        """
        return [pair for pair in pairs if pair[0] != self.compare_with and (not self.guess or pair[0] in self.names)]

    def among(self, names: Sequence[str], seed: int) -> JudgeGrader:
        """Return the judge with the variants that it guesses among, in an order that follows from the seed.

        Raises:
            ValueError: there are too few or too many of them, or the config names other categories.
        """
        if not 2 <= len(names) <= MOST_CATEGORIES:
            raise ValueError(
                f"graders.{self.outcome}: a guess of the variant takes 2 to {MOST_CATEGORIES} variants, and there are "
                f"{len(names)}"
            )
        if self.categories is not None and set(self.categories) != set(names):
            raise ValueError(f"graders.{self.outcome}.categories: a guess is one of the variants' names; remove it")
        ordered = sorted(names, key=lambda name: hashed_number(f"{seed}:guess:{name}", 64))
        return self.model_copy(update={"value": "category", "categories": ordered})

    @property
    def served(self) -> Model | None:
        """The model, where the run starts servers of it; None behind an API."""
        return None if self.endpoints else Model(source=self.model, revision=self.revision)

    @property
    def words(self) -> str:
        """Name of the judge in sentences."""
        return f"{self.model} ({self.outcome})"

    @property
    def asked(self) -> dict[str, Any]:
        """The keys that decide what the judge is asked and how its reply is read."""
        kept = (
            "rubric", "model", "value", "categories", "range", "compare_with", "guess", "max_tokens", "temperature",
            "api_request",
        )  # fmt: skip
        return {key: value for key, value in self.content().items() if key in kept}
