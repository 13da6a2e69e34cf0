"""`analysis_plan.json`: what will be tested and how, written before the first answer."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from emoprobe.results.record import Record, content_sha256


class PlannedContrast(Record):
    """One comparison of accuracies and the family that its strict grade is corrected in."""

    variant: str
    reference: str
    family: Literal["primary", "secondary"]


class PlannedEstimator(Record):
    """How a variant is known: through how many texts, on how many questions each.

    `unit` is `texts` where it speaks for a tone, `this text` where it has one, `no text` where it adds none.
    """

    variant: str
    unit: Literal["texts", "this text", "no text"]
    texts: int
    questions_per_text: int


class PowerRow(Record):
    """What the primary comparison with the fewest texts would show, at one deviation of texts from each other.

    `detectable` is the smallest difference of accuracies that is shown in 80 % of the runs after the correction (null:
    none is, at this number of questions). `limit` is the one that no number of questions would bring below.
    `equivalence_power` is how often the verdict is `equivalent` where there is no difference at all.
    """

    variant: str
    reference: str
    text_deviation: float
    questions: int
    draws: int
    texts: int
    reference_texts: int
    tests: int
    assumed_accuracy: float
    power: float
    detectable: float | None
    limit: float | None
    equivalence_power: float
    reachable: bool
    needs_more_texts: bool


class TokenMatch(Record):
    """How the texts of a variant compare in tokens with those of the primary reference; the means, and their ratio."""

    variant: str
    tokens: float
    reference_tokens: float
    ratio: float
    matched: bool


class Preregistration(Record):
    """The plan: contrasts, families, margin, estimators, power, and what probes and directions are judged by."""

    references: list[str]
    primary_reference: str | None
    contrasts: list[PlannedContrast]
    primary_measure: str
    secondary_measures: list[str]
    level: float
    correction: Literal["Holm, within each family"] = "Holm, within each family"
    margin: float
    questions: int
    draws: int
    allowed_failures: float
    estimators: list[PlannedEstimator]
    power: list[PowerRow]
    token_tolerance: float
    token_match: list[TokenMatch] = Field(default_factory=list)
    probes: dict[str, Any] = Field(default_factory=dict)
    steering: dict[str, Any] = Field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """The hash of its canonical JSON: sorted keys, no spaces."""
        return content_sha256(self.values())
