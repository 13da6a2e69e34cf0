"""Sentences on contrasts of accuracies and of other outcomes.

`tests/calibration` counts how often such a sentence is false where the truth is known.
"""

from __future__ import annotations

from typing import Any, get_args

import pandas as pd

from emoprobe.analysis.conclusion import Conclusion, plain_rows
from emoprobe.analysis.contrasts import PLANNED
from emoprobe.analysis.outcomes import (
    PRIMARY_MEASURE,
    as_judged,
    column_and_category,
    family_prefix,
    judge_of,
    measured_column,
    outcome_of,
    subject,
    title_of,
    unit_of,
    value_of,
)
from emoprobe.analysis.paired_tests import ContrastReason, Scope, Wording, conclude_contrast
from emoprobe.config.science.prompt import Valence
from emoprobe.config.section import CONTROL
from emoprobe.report.statements import amount, stated
from emoprobe.results.statement import Statement, Verdict


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
    prefix = family_prefix(measure)
    chosen = tests["measure"].map(measured_column) == measure
    if families:
        chosen &= tests["family"].isin([prefix + family for family in families])
    compared = tests[~tests["family"].str.endswith(PLANNED)]
    known = {*compared["variant"], *compared["reference"]}
    contrasts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in plain_rows(tests[chosen]):
        sides = row["variant"], row["reference"]
        row["means"] = [side for side in sides if side not in known and ("+" in side or side in get_args(Valence))]
        contrasts.setdefault(sides, []).append(row)
    return [
        _comparison(rows[0], margin or 0.0) if len(rows) == 1 else _distribution(rows, margin or 0.0)
        for rows in contrasts.values()
    ]


def _comparison(row: dict[str, Any], margin: float) -> Statement:
    if value_of(row) == "preference":
        return _preference(row)
    conclusion = conclude_contrast(row, margin)
    outcome = title_of(row["measure"], value_of(row), judge_of(row))
    variant, reference = _sides(row)
    basis = f"{_estimate(row, conclusion.p)}; {_units(row)}"
    match conclusion.reason:
        case ContrastReason.RAISES | ContrastReason.LOWERS | ContrastReason.RAISES_HERE | ContrastReason.LOWERS_HERE:
            change = _verb("raise" if row["difference"] > 0 else "lower", variant)
            text = f"{variant} {change} {outcome} compared with {reference} ({basis})"
        case (
            ContrastReason.WITHIN_MARGIN
            | ContrastReason.NEAR_MARGIN
            | ContrastReason.WITHIN_MARGIN_HERE
            | ContrastReason.NEAR_MARGIN_HERE
        ):
            within = f"within {bound(row, margin)} either way"
            text = f"{variant} and {reference} are equivalent in {outcome}, {within} ({basis})"
        case ContrastReason.NOT_TESTED:
            text = (
                f"the difference of {variant} and {reference} in {outcome} is {_described(row)}, as {_untested(row)} "
                f"({basis})"
            )
        case _:
            text = f"whether {variant} and {reference} differ in {outcome} is undecided ({basis})"
    if conclusion.reason in (ContrastReason.NEAR_MARGIN, ContrastReason.NEAR_MARGIN_HERE):
        # Two one-sided tests at 5 % go with the 90 % interval.
        text += "; the 95 % interval reaches beyond that, the 90 % interval that the verdict follows from does not"
    return _stated(row, conclusion, text)


def _preference(row: dict[str, Any]) -> Statement:
    """The sentence on how often a judge prefers the answers of one side, which is described."""
    side, other = _sides(row)
    share, low, high = (
        None if row[key] is None else f"{50 * (1 + row[key]):.1f}" for key in ("difference", "low", "high")
    )
    how_often = "an unknown share" if share is None else f"{share} %"
    interval = f"(no interval, {row['no_interval']})" if low is None else f"[{low}, {high}]"
    text = (
        f"as judged by {row['judge']}, answers with {side} are preferred to those with {other} in {how_often} of "
        f"comparisons {interval}, a tie counted as half of one; this is {_described(row)}, as {_untested(row)} "
        f"({_units(row)})"
    )
    return _stated(row, conclude_contrast(row, 0.0), text)


def _distribution(rows: list[dict[str, Any]], margin: float) -> Statement:
    """The one sentence on a contrast of all categories of an outcome.

    Their p-values are corrected together, so that one of them below the level rejects that all shares are equal. They
    are equivalent where each of them is.
    """
    conclusions = [conclude_contrast(row, margin) for row in rows]
    different = [n for n, one in enumerate(conclusions) if one.verdict in (Verdict.DIFFERENT, Verdict.DIFFERENT_HERE)]
    same = [one.verdict in (Verdict.EQUIVALENT, Verdict.EQUIVALENT_HERE) for one in conclusions]
    # The one that the verdict follows from: the clearest difference, or else the least clear equivalence.
    order = sorted(range(len(rows)), key=lambda n: 2.0 if rows[n]["p_holm"] is None else rows[n]["p_holm"])
    if not different and all(same):
        order = sorted(range(len(rows)), key=lambda n: -rows[n]["p_equivalent_holm"])
    elif not different:
        order = [n for n in order if not same[n]]
    first = order[0]
    row, conclusion = rows[first], conclusions[first]
    variant, reference = _sides(row)
    outcome = as_judged(outcome_of(row["measure"]).label, judge_of(row))

    def shares(places: list[int]) -> str:
        return ", ".join(
            f"“{column_and_category(rows[n]['measure'])[1]}” {_estimate(rows[n], conclusions[n].p)}" for n in places
        )

    basis = f"{shares(different or [first])}; {_units(row)}"
    if different:
        text = f"{variant} {_verb('change', variant)} the distribution of {outcome} compared with {reference} ({basis})"
    elif all(same):
        within = f"every share within {bound(row, margin)} either way"
        text = f"{variant} and {reference} are equivalent in the distribution of {outcome}, {within} ({basis})"
    elif conclusion.reason is ContrastReason.NOT_TESTED:
        text = (
            f"the difference of {variant} and {reference} in the distribution of {outcome} is {_described(row)}, as "
            f"{_untested(row)} ({basis})"
        )
    else:
        text = f"whether {variant} and {reference} differ in the distribution of {outcome} is undecided ({basis})"
    return _stated(row, conclusion, text)


def _stated(row: dict[str, Any], conclusion: Conclusion, text: str) -> Statement:
    family = row["family"].removeprefix(family_prefix(row["measure"]))
    if family != "primary":
        text = f"{family.capitalize()}: {text}"
    sentence = f"{text[0].upper()}{text[1:]}"
    about = subject(row["measure"], row["variant"], row["reference"])
    return stated(about, conclusion, sentence if sentence.endswith(".") else f"{sentence}.", digits=6)


def _verb(verb: str, side: str) -> str:
    plural = side.startswith(("these ", "the texts ")) or side.endswith(" tones")
    return verb if plural else f"{verb}s"


def _sides(row: dict[str, Any]) -> tuple[str, str]:
    first, second = (
        _mean_name(name, row["scope"]) if name in row["means"] else _name(name, texts, row["scope"])
        for name, texts in ((row["variant"], row["texts"]), (row["reference"], row["reference_texts"]))
    )
    return first, second


def _mean_name(name: str, scope: str) -> str:
    """Name the mean of several variants, which is about these alone: tones are no sample of those of a valence.

    Their texts are not counted, as the counts are those of the smallest one.
    """
    if scope != Scope.TONE:
        return f"the texts of {f'{name} tones' if name in get_args(Valence) else name} used here"
    return f"these {name} tones" if name in get_args(Valence) else name


def _estimate(row: dict[str, Any], p: float | None) -> str:
    if row["low"] is None:
        interval = f"no interval, {row['no_interval']}"
    else:
        unit = unit_of(row)
        difference, low, high = (amount(row[key], unit) for key in ("difference", "low", "high"))
        interval = f"{difference}{' ' * bool(unit)}{unit} [{low}, {high}]"
    return interval if p is None else f"{interval}, corrected p {p_text(p)}"


def _described(row: dict[str, Any]) -> str:
    return "not tested" if row["difference"] is None else "described and not tested"


def _untested(row: dict[str, Any]) -> str:
    return row["not_tested"] or "this number of questions was not registered"


def why(row: dict[str, Any], margin: float) -> str:
    """Return the reason for the verdict on a contrast, for readers without statistics.

    Args:
        row: a row of the table `paired_tests`.
        margin: the margin of equivalence that it was made with.
    """
    conclusion = conclude_contrast(row, margin)
    within = f"within {bound(row, margin)} of zero"
    for_what = "after correction for the comparisons of its family and the planned looks"
    corrected = "" if conclusion.p is None else f" (p {p_text(conclusion.p)} {for_what})"
    here = " This speaks of the texts used alone." if row["verdict"].endswith("_here") else ""
    match conclusion.reason:
        case ContrastReason.RAISES | ContrastReason.LOWERS | ContrastReason.RAISES_HERE | ContrastReason.LOWERS_HERE:
            side = "above" if row["difference"] > 0 else "below"
            return f"The whole interval lies {side} zero, and the test shows a difference{corrected}.{here}"
        case ContrastReason.WITHIN_MARGIN | ContrastReason.WITHIN_MARGIN_HERE:
            return f"The whole interval lies {within}, and the test rejects a larger effect{corrected}.{here}"
        case ContrastReason.NEAR_MARGIN | ContrastReason.NEAR_MARGIN_HERE:
            return f"The 90 % interval, which this test uses, lies {within}{corrected}.{here}"
        case ContrastReason.NO_INTERVAL:
            return f"There are too few data for an interval: {row['no_interval']}."
        case ContrastReason.NOT_TESTED:
            return f"Nothing is tested, as {_untested(row)}{' in advance' * (row['weight'] is None)}."
    low, high = row["low"], row["high"]
    if not low <= 0 <= high:
        return f"The interval, which is not corrected, excludes zero; the corrected test does not reject{corrected}."
    if margin <= 0:
        return f"The interval includes zero; the test shows no difference{corrected}."
    beyond = [word for word, reached in (("losses", low <= -margin), ("gains", high >= margin)) if reached]
    if beyond:
        reached = f"zero and {' and '.join(beyond)} of {bound(row, margin)} or more"
        return f"The interval includes {reached}; the test shows no difference{corrected}."
    return f"The interval, which is not corrected, lies {within}; the corrected test does not show that."


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
    counts = [count for count in (row["texts"], row["reference_texts"]) if count > 1 and row["scope"] == Scope.TONE]
    texts = min(counts, default=1)
    if row["corrected"]:
        questions += f", judged by {row['judge']} and corrected by labels of {row['labels']} of them"
    whose = "" if texts in (1, row["texts"]) else f" of {row['reference']}"
    return f"{texts} texts{whose}, {questions}" if texts > 1 else questions


def bound(row: dict[str, Any], margin: float) -> str:
    """Return the margin of equivalence of a row, with its unit."""
    unit = unit_of(row)
    return f"{100 * margin:.3g} {unit}" if unit else f"{margin:.3g}"


def p_text(value: float) -> str:
    """Return a p-value as sentences have it, with its relation."""
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"
