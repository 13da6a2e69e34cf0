"""Comparisons of accuracies and other outcomes on the same questions, corrected within families, with verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum, StrEnum
from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.conclusion import Conclusion, Reason
from emoprobe.analysis.contrasts import PLANNED, Contrast, PlannedSides, contrasts_of
from emoprobe.analysis.estimates import MIN_QUESTIONS, Estimates, Floats, difference, whichever
from emoprobe.analysis.outcomes import (
    ACCURACY,
    MEASURES,
    OF,
    PRIMARY_MEASURE,
    Outcome,
    column_and_category,
)
from emoprobe.analysis.prediction_powered import Labelled, labelled
from emoprobe.analysis.questions import Questions, Units
from emoprobe.analysis.sides import rows_of, values_of_sides
from emoprobe.analysis.statistics import CONFIDENCE, LEVEL, holm
from emoprobe.config.science.analysis import references_of
from emoprobe.config.section import CONTROL
from emoprobe.results.catalogue import TABLES
from emoprobe.results.statement import Verdict
from emoprobe.results.tables import frame


def paired_tests(
    table: pd.DataFrame,
    margin: float,
    references: Sequence[str] | None = None,
    contrasts: PlannedSides | None = None,
    weight: float | None = 1.0,
    outcomes: Sequence[Outcome] = (ACCURACY,),
) -> pd.DataFrame:
    """The table `paired_tests` of the catalogue.

    A test holds however the missing pairs would have gone, unanswered or absent: where there are any, the interval is
    the hull of those with the pairs left out, with every difference in the variant's favour and with every one against
    it, and the p-values are the largest of the three. A number without limits is not tested where there are any. Rows
    of a subset that the outcome selects are not tested, nor those on what a judge says, unless labels correct it. What
    a judge prefers in pairs has rows against its reference alone.

    Args:
        table: the trajectories.
        margin: a difference of accuracies within it on either side counts as equivalent.
        references: `analysis.references`.
        contrasts: `analysis.contrasts`.
        weight: share of the level that belongs to this number of questions (`looks.weight_of`); None: it was not
            registered, so that nothing is tested.
        outcomes: what is tested, besides accuracies each in families of its own; of a category every one, together in
            one family.
    """
    questions = Questions(table)
    valences = dict(zip(table["variant"].astype(str), table["valence"], strict=True))
    compared = contrasts_of(questions.names, references_of(questions.names, references), valences, contrasts)
    graded = next((replace(one, margin=margin) for one in outcomes if one.column == PRIMARY_MEASURE), None)
    rows = [
        _row(questions, contrast, graded, measure, weight)
        for contrast in compared
        if graded is not None
        for measure in (MEASURES if contrast.kind != PLANNED else (PRIMARY_MEASURE,))
    ]
    for outcome in outcomes:
        if outcome.column == PRIMARY_MEASURE:
            continue
        given = questions if outcome.given is None else _given(table, outcome.given)
        for contrast in compared:
            if outcome.against is not None and (outcome.against,) not in (contrast.variants, contrast.references):
                continue
            # If a side has none of these questions, `not_tested` says so.
            asked = given if {*contrast.variants, *contrast.references} <= {*given.names} else questions
            rows += [_row(asked, contrast, outcome, measure, weight) for measure in outcome.measures]
    tests = pd.DataFrame(rows)
    if rows:
        for p in ("p", "p_equivalent"):
            tests[f"{p}_holm"] = corrected(tests, p)
        tests["verdict"] = [
            verdict(*values)
            for values in zip(tests["p_holm"], tests["p_equivalent_holm"], tests["scope"], tests["tested"], strict=True)
        ]
    return frame(TABLES["paired_tests"], tests.to_dict(orient="records"))  # type: ignore[arg-type]


def _given(table: pd.DataFrame, column: str) -> Questions:
    """The questions for which a column is true somewhere, so that texts without any of them do not count as texts."""
    known = table.loc[table[column].fillna(False).astype(bool), "sample_id"]
    return Questions(table[table["sample_id"].isin(known)].reset_index(drop=True))


def corrected(tests: pd.DataFrame, p: str) -> pd.Series:
    """Return the p-values of a column of the table, over the weight of its look, corrected within each family."""
    weighted = (tests[p].astype(float) / tests["weight"].astype(float)).clip(upper=1.0)
    return weighted.groupby(tests["family"]).transform(holm)


def verdict(p: float, p_equivalent: float, scope: str, tested: bool) -> Verdict:
    """Return the verdict of two corrected p-values: a difference that is shown outranks that it is small."""
    if not tested:
        return Verdict.NOTE
    general = scope == Scope.TONE
    if p < LEVEL:
        return Verdict.DIFFERENT if general else Verdict.DIFFERENT_HERE
    if p_equivalent < LEVEL:
        return Verdict.EQUIVALENT if general else Verdict.EQUIVALENT_HERE
    return Verdict.UNDECIDED


class Scope(StrEnum):
    """Scope of a comparison: whether it represents texts other than those used."""

    TONE = "tone"  # the texts stand for others
    TEXTS = "texts"  # too few for that, or which question had which is unknown


class ContrastReason(Reason):
    """Reason for the verdict on a contrast of accuracies."""

    RAISES = Verdict.DIFFERENT, "the accuracy of the variant is higher"
    LOWERS = Verdict.DIFFERENT, "the accuracy of the variant is lower"
    WITHIN_MARGIN = Verdict.EQUIVALENT, "the 95 % interval lies within the margin"
    NEAR_MARGIN = Verdict.EQUIVALENT, "the 90 % interval lies within the margin, and the 95 % interval does not"
    RAISES_HERE = Verdict.DIFFERENT_HERE, "the accuracy of the variant is higher with the texts used"
    LOWERS_HERE = Verdict.DIFFERENT_HERE, "the accuracy of the variant is lower with the texts used"
    WITHIN_MARGIN_HERE = Verdict.EQUIVALENT_HERE, "with the texts used the 95 % interval lies within the margin"
    NEAR_MARGIN_HERE = Verdict.EQUIVALENT_HERE, "with the texts used only the 90 % interval lies within the margin"
    INCONCLUSIVE = Verdict.UNDECIDED, "neither test rejects"
    NO_INTERVAL = Verdict.UNDECIDED, "there is too little data for an interval"
    NOT_TESTED = Verdict.NOTE, "this number of questions was not registered"


class Wording(Enum):
    """Names of a variant in sentences."""

    NO_TEXT = "adds no text"
    UNKNOWN_TEXTS = "which question had which text is unknown"
    ONE_TEXT = "one text, and others may do otherwise"
    THESE_TEXTS = "several texts, too few to stand for others"
    TONE = "enough texts, which stand for others"

    @classmethod
    def of(cls, variant: str, texts: int, scope: str) -> Wording:
        """Return the wording of a variant with so many texts that have a question, in a comparison of some scope."""
        if variant == CONTROL:
            return cls.NO_TEXT
        if scope == Scope.TONE:
            return cls.TONE
        return (cls.UNKNOWN_TEXTS, cls.ONE_TEXT, cls.THESE_TEXTS)[min(texts, 2)]


def conclude_contrast(row: Mapping[str, Any], margin: float) -> Conclusion:
    """Return the conclusion of a row of the table `paired_tests`, with None for what is missing.

    Args:
        row: the row.
        margin: the margin of equivalence that the table was made with.
    """
    outcome, low, high = Verdict(row["verdict"]), row["low"], row["high"]
    equivalent = outcome in (Verdict.EQUIVALENT, Verdict.EQUIVALENT_HERE)
    here = "_HERE" if outcome in (Verdict.DIFFERENT_HERE, Verdict.EQUIVALENT_HERE) else ""
    if equivalent:
        within = low is None or -margin < low <= high < margin
        reason = ContrastReason[f"{'WITHIN' if within else 'NEAR'}_MARGIN{here}"]
    elif outcome in (Verdict.DIFFERENT, Verdict.DIFFERENT_HERE):
        reason = ContrastReason[f"{'RAISES' if row['difference'] > 0 else 'LOWERS'}{here}"]
    elif outcome is Verdict.NOTE:
        reason = ContrastReason.NOT_TESTED
    else:
        reason = ContrastReason.NO_INTERVAL if low is None else ContrastReason.INCONCLUSIVE
    p = row["p_equivalent_holm" if equivalent else "p_holm"]
    return Conclusion(reason, row["difference"], low, high, p, int(row["n"]))


def compare(
    questions: Questions,
    contrast: Contrast,
    measure: str = PRIMARY_MEASURE,
    margin: float | None = None,
    confidence: float = CONFIDENCE,
    outcome: Outcome = ACCURACY,
) -> tuple[Estimates, Units | None]:
    """Estimate a contrast, whatever the missing pairs would have been, and return the units of its claim as well.

    Args:
        questions: the trajectories.
        contrast: the sides.
        measure: one of `MEASURES`, or of the outcome; of `untruncated` what is missing stays so, as the outcome selects
            the questions.
        margin: of equivalence; None: equivalence is not tested.
        confidence: of the interval.
        outcome: that the measure belongs to.
    """
    known = questions.units(*contrast.variants, *contrast.references, once=outcome.against)
    units = known or Units()
    completions: list[tuple[float, float] | None] = [None]
    places = rows_of(questions, contrast, outcome)
    share = outcome.value != "number"
    limits = (0.0, 1.0) if share else outcome.limits
    if measure != "untruncated" and limits is not None and questions.missing(measure)[places].any():
        completions += [limits[::-1], limits]
    groups = units.repeated(questions.groups)
    margin, unseen = float("nan") if margin is None else margin, None
    estimates = []
    for completion in completions:
        ours, theirs = values_of_sides(questions, contrast, measure, completion, units.asks, outcome.against)
        both = ~np.isnan(ours - theirs)
        if not share and completion is None and both.any():
            unseen = unseen_change(ours[both], theirs[both], outcome)
        estimates.append(
            difference(
                ours - theirs,
                *units.sides,
                margin,
                share,
                groups,
                confidence,
                skewed=not share,
                unseen=unseen,
                other_groups=questions.other_groups,
            )
        )
    return whichever(estimates), known


def unseen_change(ours: Floats, theirs: Floats, outcome: Outcome) -> float:
    """Return how far a rare kind of text, of which none is here, may move a number.

    One that breaks the answer costs as much as there is: of p(gold), or of words. That says nothing of a number whose 0
    means nothing, which it moves no further than the furthest answer lies from the median.
    """
    values = np.concatenate([ours, theirs])
    if outcome.broken is not None:
        return float(values.mean() - outcome.broken)
    return float(min(np.abs(values).mean(), np.abs(values - np.median(values)).max()))


def _row(
    questions: Questions, contrast: Contrast, outcome: Outcome, measure: str, weight: float | None
) -> dict[str, Any]:
    estimate, units = compare(questions, contrast, measure, outcome.margin, outcome=outcome)
    places = rows_of(questions, contrast, outcome)
    labels = None if outcome.judge is None else _labelled(questions, contrast, outcome, measure, units)
    estimate = estimate if labels is None or labels.estimate is None else labels.estimate
    scope, units = Scope.TEXTS if units is None else Scope.TONE, units or Units()
    selected = measure == "untruncated"
    ours, theirs = values_of_sides(questions, contrast, measure, None, 1, outcome.against)
    both = ~np.isnan(ours - theirs)
    ours, theirs, n = ours[both], theirs[both], int(both.sum())
    groups = None if questions.groups is None else len(np.unique(questions.groups[both]))
    unit = "texts" if units.divisions else "questions" if groups is None else "groups"
    low, high, p, p_equivalent = (
        float("nan") if selected else float(value)
        for value in (estimate.low, estimate.high, estimate.p, estimate.p_equivalent)
    )
    missing = int(questions.missing(PRIMARY_MEASURE if measure in MEASURES else measure)[places].sum())
    why = None
    if weight is None:
        why = "this number of questions was not registered"
    elif selected:
        why = "the outcome selects these questions"
    elif outcome.given is not None and n == 0:
        why = outcome.none_given
    elif labels is not None:  # a judge that leans towards a tone makes a difference where the answers have none
        why = labels.why
    elif missing and outcome.value == "number" and outcome.limits is None:
        why = f"{missing} values are missing of a number without range"
    tested = why is None
    return {
        "variant": contrast.variant,
        "reference": contrast.reference,
        "measure": measure,
        "value": outcome.value,
        "family": contrast.family(measure),
        "scope": scope,
        "unit": unit,
        "texts": min(map(questions.count, contrast.variants)),
        "reference_texts": min(map(questions.count, contrast.references)),
        "groups": groups,
        "n": n,
        "missing": missing,
        **(_solved(ours, theirs) if outcome.value in ("binary", "category") else {}),
        "difference": float(estimate.value),
        "low": low,
        "high": high,
        "no_interval": "the outcome selects these questions" if selected else _reason(n, low, unit),
        "judge": outcome.judge,
        **({} if labels is None else {"labels": labels.count, "corrected": labels.estimate is not None}),
        "tested": tested,
        "not_tested": why,
        "weight": weight,
        "p": p if tested else float("nan"),
        "margin": outcome.margin,
        "p_equivalent": p_equivalent if tested else float("nan"),
    }


def _labelled(
    questions: Questions, contrast: Contrast, outcome: Outcome, measure: str, units: Units | None
) -> Labelled:
    if outcome.human is None or outcome.human not in questions.table:
        return Labelled(0, "no human labels correct the judge, which may lean towards a tone")
    _, category = column_and_category(measure)
    human = values_of_sides(questions, contrast, outcome.human + (f"{OF}{category}" if category else ""), None, 1)
    judge = values_of_sides(questions, contrast, measure, None, 1)
    places = [questions.row(name) for name in (*contrast.variants, *contrast.references)]
    return labelled(questions, outcome, places, human, judge, units or Units())


def _solved(ours: Floats, theirs: Floats) -> dict[str, float]:
    """How many questions both sides solve, one alone, or none.

    With several draws of a question, or several variants, these are means over their pairs.
    """
    return {
        "both": float((ours * theirs).sum()),
        "gained": float((ours * (1 - theirs)).sum()),
        "lost": float(((1 - ours) * theirs).sum()),
        "neither": float(((1 - ours) * (1 - theirs)).sum()),
    }


def _reason(n: int, low: float, unit: str) -> str | None:
    if not np.isnan(low):
        return None
    if n < MIN_QUESTIONS:
        return f"fewer than {MIN_QUESTIONS} questions"
    if unit == "groups":
        return "most questions are of one group"
    return "too few texts have questions"
