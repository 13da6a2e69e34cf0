"""`analysis_plan.json`: what will be tested and how, written before the first answer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from emoprobe.results import atomic
from emoprobe.results.record import Record, content_sha256, unreadable
from emoprobe.text import split_lines


class PlannedContrast(Record):
    """One comparison of accuracies and the family that its strict grade is corrected in."""

    variant: str
    reference: str
    family: Literal["planned", "primary", "secondary"]


class PlannedEstimator(Record):
    """Sampling of a variant: the number of texts, and of questions for each.

    `unit` is `texts` where it speaks for a tone, `this text` where it has one, `no text` where it adds none.
    """

    variant: str
    unit: Literal["texts", "this text", "no text"]
    texts: int
    questions_per_text: int


class PowerRow(Record):
    """Power of the primary comparison with the fewest texts, at one standard deviation between texts.

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
    """Mean tokens of a variant's texts and of the primary reference's, and their ratio."""

    variant: str
    tokens: float
    reference_tokens: float
    ratio: float
    matched: bool


class Preregistration(Record):
    """The plan: contrasts, families, margin, estimators, power, and what probes and directions are judged by.

    `looks` are the numbers of questions at which accuracies are tested, each with its share of the level. `settings`
    are all others that can change a verdict while the answers stay, by name; `code` has a digest of the analysis by
    rule. Version 0.2 wrote none of the three: then the one look is `questions`. `graders` are all that are tested, the
    primary one first, and `outcomes` the settings of those besides accuracy, each with families of its own, corrected
    alone; null where accuracy is the only one.
    """

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
    looks: dict[int, float] | None = None
    settings: dict[str, Any] | None = None
    graders: list[str] | None = None
    outcomes: dict[str, dict[str, Any]] | None = None
    code: dict[str, str] | None = None

    @property
    def registered(self) -> dict[int, float]:
        """The looks, also of an earlier version."""
        return {self.questions: 1.0} if self.looks is None else self.looks

    def values(self) -> dict[str, Any]:
        """Plain values in the order of the fields, without those that the plan of an earlier version lacks."""
        later = ("looks", "settings", "graders", "outcomes", "code")
        return {name: value for name, value in super().values().items() if value is not None or name not in later}

    @property
    def sha256(self) -> str:
        """The hash of its canonical JSON: sorted keys, no spaces."""
        return content_sha256(self.values())


class Registration(Record):
    """A line of `preregistrations.jsonl`: a plan that was written, when, and whether the folder held answers then."""

    sha256: str
    date: str
    answers: bool
    plan: dict[str, Any]


def read_registrations(path: Path) -> list[Registration]:
    """Return every plan that was written in a folder, in order; empty where an earlier version kept no history.

    Raises:
        DamagedError: the file cannot be read.
    """
    if not path.exists():
        return []
    try:
        lines = split_lines(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise unreadable(path, error) from None
    return [Registration.parse(path, line) for line in lines if line]


def append_registration(path: Path, plan: Preregistration, answers: bool) -> None:
    """Add a plan to the history, which no rule makes, so that none deletes it.

    Args:
        path: of the history.
        plan: that was written.
        answers: whether the folder holds an answer.
    """
    line = Registration(
        sha256=plan.sha256,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        answers=answers,
        plan=plan.values(),
    )
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    atomic.write_text(path, before + line.model_dump_json() + "\n")
