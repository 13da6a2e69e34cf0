"""Sentences on contrasts of accuracies and of other outcomes.

`tests/calibration` counts how often such a sentence is false where the truth is known.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from emoprobe.analysis.conclusion import plain_rows
from emoprobe.analysis.contrasts import OUTCOMES, PRIMARY_MEASURE, subject
from emoprobe.analysis.paired_tests import ContrastReason, Scope, Wording, conclude_contrast
from emoprobe.config.section import CONTROL
from emoprobe.graders.registry import GRADERS
from emoprobe.report.statements import points, stated
from emoprobe.results.statement import Statement

TITLES = {grader.column: grader.title for grader in GRADERS.values()}


def comparisons(
    tests: pd.DataFrame, margin: float | None, measure: str = PRIMARY_MEASURE, *families: str
) -> list[Statement]:
    """Return a sentence for each contrast of one outcome, in the order of the table: the planned ones first.

    Args:
        tests: the table `paired_tests`.
        margin: the margin of equivalence that it was made with; None: equivalence was not tested.
        measure: column of the outcome; strict accuracy by default.
        families: kinds of contrasts, such as `planned`; none: all.
    """
    prefix = OUTCOMES.get(measure, "")
    chosen = tests["measure"] == measure
    if families:
        chosen &= tests["family"].isin([prefix + family for family in families])
    return [_comparison(row, margin or 0.0) for row in plain_rows(tests[chosen])]


def _comparison(row: dict[str, Any], margin: float) -> Statement:
    outcome, prefix = TITLES[row["measure"]], OUTCOMES.get(row["measure"], "")
    unit = "points of probability" if prefix else "points"
    conclusion = conclude_contrast(row, margin)
    variant = _name(row["variant"], row["texts"], row["scope"])
    reference = _name(row["reference"], row["reference_texts"], row["scope"])
    interval = (
        f"no interval, {row['no_interval']}"
        if row["low"] is None
        else f"{points(row['difference'])} {unit} [{points(row['low'])}, {points(row['high'])}]"
    )
    basis = f"{interval}{'' if conclusion.p is None else f', corrected p {p_text(conclusion.p)}'}; {_units(row)}"
    match conclusion.reason:
        case ContrastReason.RAISES | ContrastReason.LOWERS | ContrastReason.RAISES_HERE | ContrastReason.LOWERS_HERE:
            change = "raise" if row["difference"] > 0 else "lower"
            change += "" if variant.startswith("these ") else "s"
            text = f"{variant} {change} {outcome} compared with {reference} ({basis})"
        case (
            ContrastReason.WITHIN_MARGIN
            | ContrastReason.NEAR_MARGIN
            | ContrastReason.WITHIN_MARGIN_HERE
            | ContrastReason.NEAR_MARGIN_HERE
        ):
            bound = _bound(margin)
            text = f"{variant} and {reference} are equivalent in {outcome}, within {bound} {unit} either way ({basis})"
        case ContrastReason.NOT_TESTED:
            text = (
                f"the difference of {variant} and {reference} in {outcome} is described and not tested, as this "
                f"number of questions was not registered ({basis})"
            )
        case _:
            text = f"whether {variant} and {reference} differ in {outcome} is undecided ({basis})"
    if conclusion.reason in (ContrastReason.NEAR_MARGIN, ContrastReason.NEAR_MARGIN_HERE):
        # Two one-sided tests at 5 % go with the 90 % interval.
        text += "; the 95 % interval reaches beyond that, the 90 % interval that the verdict follows from does not"
    family = row["family"].removeprefix(prefix)
    if family != "primary":
        text = f"{family.capitalize()}: {text}"
    sentence = f"{text[0].upper()}{text[1:]}"
    about = subject(row["measure"], row["variant"], row["reference"])
    return stated(about, conclusion, sentence if sentence.endswith(".") else f"{sentence}.", digits=6)


def why(row: dict[str, Any], margin: float) -> str:
    """Return the reason for the verdict on a contrast, for readers without statistics.

    Args:
        row: a row of the table `paired_tests`.
        margin: the margin of equivalence that it was made with.
    """
    conclusion = conclude_contrast(row, margin)
    bound = _bound(margin)
    for_what = "after correction for the comparisons of its family and the planned looks"
    corrected = "" if conclusion.p is None else f" (p {p_text(conclusion.p)} {for_what})"
    here = " This speaks of the texts used alone." if row["verdict"].endswith("_here") else ""
    match conclusion.reason:
        case ContrastReason.RAISES | ContrastReason.LOWERS | ContrastReason.RAISES_HERE | ContrastReason.LOWERS_HERE:
            side = "above" if row["difference"] > 0 else "below"
            return f"The whole interval lies {side} zero, and chance alone rarely does this{corrected}.{here}"
        case ContrastReason.WITHIN_MARGIN | ContrastReason.WITHIN_MARGIN_HERE:
            return (
                f"The whole interval lies within {bound} points of zero{corrected}: a larger effect is excluded.{here}"
            )
        case ContrastReason.NEAR_MARGIN | ContrastReason.NEAR_MARGIN_HERE:
            return f"The 90 % interval, which this test uses, lies within {bound} points of zero{corrected}.{here}"
        case ContrastReason.NO_INTERVAL:
            return f"There are too few data for an interval: {row['no_interval']}."
        case ContrastReason.NOT_TESTED:
            return "This number of questions was not registered in advance, so nothing is tested."
    low, high = row["low"], row["high"]
    if not low <= 0 <= high:
        return f"The interval, which is not corrected, excludes zero; the corrected test does not reject{corrected}."
    beyond = [word for word, reached in (("losses", low <= -margin), ("gains", high >= margin)) if reached]
    if beyond:
        return f"The data allow no effect at all, and also {' or '.join(beyond)} of {bound} points or more."
    return (
        f"The interval, which is not corrected, lies within {bound} points of zero; the corrected test does not show "
        "that."
    )


def _name(variant: str, texts: int, scope: str) -> str:
    match Wording.of(variant, texts, scope):
        case Wording.NO_TEXT:
            # Against it every difference holds the effect of any added text: the sentence says so.
            return f"no added text ({CONTROL})"
        case Wording.UNKNOWN_TEXTS:
            return f"the text of {variant} used here"
        case Wording.ONE_TEXT:
            return f"this text of {variant}"
        case Wording.THESE_TEXTS:
            return f"these {texts} texts of {variant}"
        case _:
            return variant


def _units(row: dict[str, Any]) -> str:
    questions = f"{row['n']} question{'' if row['n'] == 1 else 's'}"
    if row["groups"] is not None:
        questions += f" from {row['groups']} groups"
    texts = max(row["texts"], row["reference_texts"]) if row["scope"] == Scope.TONE else 1
    whose = "" if row["texts"] > 1 or texts == 1 else f" of {row['reference']}"
    return f"{texts} texts{whose}, {questions}" if texts > 1 else questions


def _bound(margin: float) -> str:
    return f"{100 * margin:.3g}"


def p_text(value: float) -> str:
    """Return a p-value as sentences have it, with its relation."""
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"
