"""Every variant against every reference on the same questions, corrected within two families, with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np
import pandas as pd

from emoprobe.analysis.conclusion import Conclusion, Reason
from emoprobe.analysis.contrasts import MEASURES, Contrast, contrasts_of, references_of
from emoprobe.analysis.estimates import MIN_QUESTIONS, MIN_TEXTS, Estimates, Floats, difference
from emoprobe.analysis.questions import Questions
from emoprobe.analysis.statistics import LEVEL, holm
from emoprobe.config.section import CONTROL
from emoprobe.results.catalogue import TABLES
from emoprobe.results.statement import Verdict
from emoprobe.results.tables import frame


def paired_tests(table: pd.DataFrame, margin: float, references: Sequence[str] | None = None) -> pd.DataFrame:
    """The table `paired_tests` of the catalogue.

    A test holds however the unanswered pairs would have gone: where there are any, the interval is the hull of those
    with the pairs left out, with every difference in the variant's favour and with every one against it, and the p
    values are the largest of the three.

    Args:
        table: the trajectories.
        margin: a difference of accuracies within it on either side counts as equivalent.
        references: `analysis.references`.
    """
    questions = Questions(table)
    rows = [
        _row(questions, contrast, measure, margin)
        for contrast in contrasts_of(questions.names, references_of(questions.names, references))
        for measure in MEASURES
    ]
    tests = pd.DataFrame(rows)
    if rows:
        for p in ("p", "p_equivalent"):
            for family in tests["family"].unique():
                members = tests["family"] == family
                tests.loc[members, f"{p}_holm"] = holm(tests.loc[members, p])
        tests["verdict"] = [verdict(*pair) for pair in zip(tests["p_holm"], tests["p_equivalent_holm"], strict=True)]
    return frame(TABLES["paired_tests"], tests.to_dict(orient="records"))  # type: ignore[arg-type]


def verdict(p: float, p_equivalent: float) -> Verdict:
    """Return the verdict of two corrected p-values: a difference that is shown outranks that it is small."""
    if p < LEVEL:
        return Verdict.DIFFERENT
    return Verdict.EQUIVALENT if p_equivalent < LEVEL else Verdict.UNDECIDED


class ContrastReason(Reason):
    """Why a contrast of accuracies has its verdict."""

    RAISES = Verdict.DIFFERENT, "the accuracy of the variant is higher"
    LOWERS = Verdict.DIFFERENT, "the accuracy of the variant is lower"
    WITHIN_MARGIN = Verdict.EQUIVALENT, "the 95 % interval lies within the margin"
    NEAR_MARGIN = Verdict.EQUIVALENT, "the 90 % interval lies within the margin, and the 95 % interval does not"
    INCONCLUSIVE = Verdict.UNDECIDED, "neither test rejects"
    NO_INTERVAL = Verdict.UNDECIDED, "there is too little data for an interval"


class Wording(Enum):
    """How far a variant speaks for other texts than those that were used."""

    NO_TEXT = "adds no text"
    UNKNOWN_TEXTS = "which question had which text is unknown"
    ONE_TEXT = "one text, and others may do otherwise"
    SEVERAL_TEXTS = "several texts, which stand for others"

    @classmethod
    def of(cls, variant: str, texts: int) -> Wording:
        """Return the wording of a variant with so many texts that have a question."""
        if variant == CONTROL:
            return cls.NO_TEXT
        return (cls.UNKNOWN_TEXTS, cls.ONE_TEXT, cls.SEVERAL_TEXTS)[min(texts, 2)]


def conclude_contrast(row: Mapping[str, Any], margin: float) -> Conclusion:
    """Return the conclusion of a row of the table `paired_tests`, with None for what is missing.

    Args:
        row: the row.
        margin: the margin of equivalence that the table was made with.
    """
    outcome, low, high = Verdict(row["verdict"]), row["low"], row["high"]
    if outcome is Verdict.DIFFERENT:
        reason = ContrastReason.RAISES if row["difference"] > 0 else ContrastReason.LOWERS
    elif outcome is Verdict.EQUIVALENT:
        within = low is None or -margin < low <= high < margin
        reason = ContrastReason.WITHIN_MARGIN if within else ContrastReason.NEAR_MARGIN
    else:
        reason = ContrastReason.NO_INTERVAL if low is None else ContrastReason.INCONCLUSIVE
    p = row["p_equivalent_holm" if outcome is Verdict.EQUIVALENT else "p_holm"]
    return Conclusion(reason, row["difference"], low, high, p, int(row["n"]))


def _row(questions: Questions, contrast: Contrast, measure: str, margin: float) -> dict[str, Any]:
    texts, reference_texts = questions.texts(contrast.variant), questions.texts(contrast.reference)
    places = questions.row(contrast.variant), questions.row(contrast.reference)

    def pair(failed: tuple[float, float] | None = None) -> tuple[Floats, Floats]:
        first, second = failed if failed is not None else (None, None)
        return questions.values(measure, first)[places[0]], questions.values(measure, second)[places[1]]

    ours, theirs = pair()
    estimates = [difference(ours - theirs, texts, reference_texts, margin, groups=questions.groups)]
    if questions.failures.any():
        for extreme in ((1.0, 0.0), (0.0, 1.0)):
            first, second = pair(extreme)
            estimates.append(difference(first - second, texts, reference_texts, margin, groups=questions.groups))
    low, high, p, p_equivalent = _whatever(estimates)
    both = ~np.isnan(ours - theirs)
    groups = None if questions.groups is None else len(np.unique(questions.groups[both]))
    alone = "questions" if groups is None else "groups"
    ours, theirs = ours[both], theirs[both]
    return {
        "variant": contrast.variant,
        "reference": contrast.reference,
        "measure": measure,
        "family": contrast.family(measure),
        "unit": alone if texts is None and reference_texts is None else "texts",
        "texts": questions.count(contrast.variant),
        "reference_texts": questions.count(contrast.reference),
        "groups": groups,
        "n": int(both.sum()),
        # With several draws of a question these are means over its pairs of draws.
        "both": float((ours * theirs).sum()),
        "gained": float((ours * (1 - theirs)).sum()),
        "lost": float(((1 - ours) * theirs).sum()),
        "neither": float(((1 - ours) * (1 - theirs)).sum()),
        "difference": float(estimates[0].value),
        "low": low,
        "high": high,
        "no_interval": _reason(int(both.sum()), low, alone if texts is None and reference_texts is None else "texts"),
        "p": p,
        "p_equivalent": p_equivalent,
    }


def _whatever(estimates: list[Estimates]) -> tuple[float, float, float, float]:
    """Interval and p values that hold for every one of these estimates."""
    low, high = min(float(each.low) for each in estimates), max(float(each.high) for each in estimates)
    values = [float(each.value) for each in estimates]
    p = max(float(each.p) for each in estimates) if min(values) > 0 or max(values) < 0 else 1.0
    if any(np.isnan(each.p) for each in estimates):
        return float("nan"), float("nan"), float("nan"), float("nan")
    return low, high, p, max(float(each.p_equivalent) for each in estimates)


def _reason(n: int, low: float, unit: str) -> str | None:
    if not np.isnan(low):
        return None
    if n < MIN_QUESTIONS:
        return f"fewer than {MIN_QUESTIONS} questions"
    if unit == "groups":
        return "most questions are of one group"
    return f"fewer than {MIN_TEXTS} texts have questions"
