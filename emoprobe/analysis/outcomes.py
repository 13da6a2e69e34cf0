"""The outcomes of an experiment: what its graders measure, each with the type that decides how it is tested."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from emoprobe.config.experiment import Config
from emoprobe.config.science.conversation import AGENT, SINGLE
from emoprobe.config.science.graders import LogprobGrader
from emoprobe.config.science.judge import JudgeGrader
from emoprobe.config.science.outcome_grader import OutcomeGrader, Value
from emoprobe.config.section import is_format
from emoprobe.conversations.variants import turns_of
from emoprobe.graders.registry import OUTCOME_PREFIX, column_of

if TYPE_CHECKING:  # a plan asks what a sentence is about, and does without pandas
    import pandas as pd

# The grade of the planned and primary families; the other measures of accuracy are secondary.
PRIMARY_MEASURE = "correct"
MEASURES = (PRIMARY_MEASURE, "lenient", "untruncated")
# Columns that labels by people add: their values, the place of a question in the order in which questions are to be
# labelled, and 1 where there is an answer.
HUMAN, PLACE, ANSWERED = "human_", "label_place", "answered"
OF = "="  # between the column of an outcome and one of its categories, in the name of a measure


@dataclass(frozen=True)
class Outcome:
    """One outcome.

    Attributes:
        label: of its grader; its families of tests begin with it.
        column: in the table of trajectories.
        value: its type.
        margin: of equivalence; None: equivalence is not tested.
        categories: where the value is a category.
        limits: smallest and largest number that there can be; None: there is no limit.
        judge: name of the model that judged it; None: no model did.
        human: column with labels by people, which correct the judge; None: there are none.
        title: name in sentences; None: it follows from label, type and judge.
        unit: of a difference times 100; None: points of shares, and nothing of numbers.
        given: binary column; only questions where it is true in some variant have the outcome. None: all have.
        none_given: why there is no test where that is true of no question.
        known: column that has a value wherever the outcome could be graded; None: its own.
        broken: smallest value, which a variant that breaks the answer has; None: there is no such value.
        against: reference that answers of the other variants are compared with; None: each is graded alone. The value
            is then the share of both orders in which the answer is preferred.
    """

    label: str
    column: str
    value: Value
    margin: float | None = None
    categories: tuple[str, ...] = ()
    limits: tuple[float, float] | None = None
    judge: str | None = None
    human: str | None = None
    title: str | None = None
    unit: str | None = None
    given: str | None = None
    none_given: str | None = None
    known: str | None = None
    broken: float | None = None
    against: str | None = None

    @property
    def measures(self) -> tuple[str, ...]:
        """What is tested: its column, or each of its categories."""
        return tuple(f"{self.column}{OF}{one}" for one in self.categories) or (self.column,)


ACCURACY = Outcome("number", PRIMARY_MEASURE, "binary", title="strict accuracy")
P_GOLD = Outcome(
    "logprob", "p_gold", "number", limits=(0.0, 1.0), title="p(gold)", unit="points of probability", broken=0.0
)
# The last grade on questions that were answered right at first, before a tone came in (`survival_of`).
SURVIVAL = Outcome(
    "survival",
    "survived",
    "binary",
    title="the share of right first answers that survive",
    given="correct_first",
    none_given="no question has a right first answer on both sides",
    known=PRIMARY_MEASURE,
)
# Outcomes whose columns have names of their own.
NAMED = {one.column: one for one in (ACCURACY, P_GOLD, SURVIVAL)} | {
    "lenient": replace(ACCURACY, column="lenient", title="lenient accuracy"),
    "untruncated": replace(ACCURACY, column="untruncated", title="strict accuracy on answers that were not cut off"),
}


def outcome_of(measure: str, value: Value = "binary") -> Outcome:
    """Return the outcome of a measure, as far as the tables name it: without margin, categories, limits and judge.

    Args:
        measure: of the table `paired_tests`.
        value: type of the outcome.
    """
    column = measured_column(measure)
    return NAMED.get(column) or Outcome(column.removeprefix(OUTCOME_PREFIX), column, value)


def outcomes_of(config: Config) -> list[Outcome]:
    """Return the outcomes of an experiment, in the order of its graders."""
    found = []
    for entry in config.outcome_graders:
        if isinstance(entry, OutcomeGrader):
            shares = entry.type in ("binary", "category")
            margin = config.analysis.margin if entry.margin is None and shares else entry.margin
            one = Outcome(entry.outcome, column_of(entry), entry.type, margin, entry.names, entry.values_in)
            if isinstance(entry, JudgeGrader):
                human = HUMAN + entry.outcome if entry.labels is not None else None
                one = replace(one, judge=entry.words, human=human, against=entry.compare_with)
            found.append(one)
        elif isinstance(entry, LogprobGrader):
            found.append(replace(P_GOLD, margin=entry.margin))
        else:
            found.append(replace(ACCURACY, margin=config.analysis.margin))
    return [*found, *survival_of(config)]


def primary_of(config: Config) -> Outcome:
    """Return the outcome of the first screen, the figures and the plan: accuracy, or else that of the first grader."""
    outcomes = outcomes_of(config)
    return next((outcome for outcome in outcomes if outcome.column == PRIMARY_MEASURE), outcomes[0])


def survival_of(config: Config) -> list[Outcome]:
    """Return the outcome `SURVIVAL` where it is tested: where no variant changes the first answer.

    Which questions are answered right at first is then decided before a tone comes in. Where a variant changes the
    first turn it selects these questions as well, so that nothing follows from what becomes of them.
    """
    if config.conversation.kind in (SINGLE, AGENT) or not config.grades_answers:
        return []
    changed = any(_changes_first_turn(config, name) for name in config.variants if not is_format(name))
    return [] if changed else [replace(SURVIVAL, margin=config.analysis.margin)]


def _changes_first_turn(config: Config, name: str) -> bool:
    variant = config.variants[name]
    adds = bool(variant.paraphrases) or variant.scramble is not None
    rewrites = variant.transform is not None or variant.template is not None or variant.prefill is not None
    return rewrites or (adds and 1 in turns_of(config, name))


def column_and_category(measure: str) -> tuple[str, str | None]:
    """Return the column of a measure, and its category, if it is one."""
    column, of, category = measure.partition(OF)
    return column, category if of else None


def measured_column(measure: str) -> str:
    """Return the column of a measure, that of all its categories if it is one."""
    return column_and_category(measure)[0]


def family_prefix(measure: str) -> str:
    """Return what the families of a measure begin with; each outcome but accuracy has families of its own."""
    return "" if measure in MEASURES else f"{outcome_of(measure).label}_"


def as_judged(title: str, judge: str | None) -> str:
    """Return the name of an outcome, with the model that judged it, if one did."""
    return title if judge is None else f"{title} as judged by {judge}"


def title_of(measure: str, value: Value, judge: str | None = None) -> str:
    """Return the name of a measure in sentences.

    Args:
        measure: of the table `paired_tests`.
        value: the type of its outcome.
        judge: the model that judged it; None: no model did.
    """
    outcome, (_, category) = outcome_of(measure, value), column_and_category(measure)
    titles: dict[Value, str] = {
        "binary": f"the rate of {outcome.label}",
        "number": f"mean {outcome.label}",
        "category": f"the shares of {outcome.label}",
        "preference": f"the share of preferred answers ({outcome.label})",
    }
    title = titles[value] if category is None else f"the share of “{category}” in {outcome.label}"
    return as_judged(outcome.title or title, judge)


def subject(measure: str, variant: str, reference: str) -> str:
    """Return what a sentence on a contrast is about; the categories of an outcome have one sentence together."""
    column = measured_column(measure)
    return f"{'accuracy' if column == PRIMARY_MEASURE else column}:{variant}-{reference}"


def primary_column(measures: Iterable[str]) -> str:
    """Return the column of strict accuracy or, where it is not among the measures, of the first of them."""
    columns = [*map(measured_column, measures)]
    return PRIMARY_MEASURE if PRIMARY_MEASURE in columns else next(iter(columns), PRIMARY_MEASURE)


def primary_rows(tests: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `paired_tests` on strict accuracy or, where it is not graded, on the first outcome."""
    rows: pd.DataFrame = tests[tests["measure"].map(measured_column) == primary_column(tests["measure"])]
    return rows


def judge_of(row: dict[str, Any]) -> str | None:
    """Return the judge whose values a row of `paired_tests` describes; None where people corrected them, or no model
    judged.
    """
    judge: str | None = row["judge"]
    return None if row["corrected"] else judge


def value_of(row: dict[str, Any]) -> Value:
    """Return the type of the outcome of a row of `paired_tests`; tables of earlier versions have accuracies alone."""
    return row["value"] or "binary"


def unit_of(row: dict[str, Any]) -> str:
    """Return the unit of a row of `paired_tests`; empty for numbers that are in none."""
    unit = outcome_of(row["measure"]).unit
    if unit is not None:
        return unit
    return "" if row["value"] == "number" else "points"
