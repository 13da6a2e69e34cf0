"""Sentences on contrasts of accuracies.

`tests/calibration` counts how often such a sentence is false where the truth is known.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from emoprobe.analysis.conclusion import plain_rows
from emoprobe.analysis.contrasts import PRIMARY_MEASURE
from emoprobe.analysis.paired_tests import ContrastReason, Wording, conclude_contrast
from emoprobe.config.section import CONTROL
from emoprobe.report.statements import points, stated
from emoprobe.results.statement import Statement


def comparisons(tests: pd.DataFrame, margin: float) -> list[Statement]:
    """Return a sentence for each contrast of strict accuracy, in the order of the table: the primary ones first.

    Args:
        tests: the table `paired_tests`.
        margin: the margin of equivalence that it was made with.
    """
    return [_comparison(row, margin) for row in plain_rows(tests[tests["measure"] == PRIMARY_MEASURE])]


def _comparison(row: dict[str, Any], margin: float) -> Statement:
    conclusion = conclude_contrast(row, margin)
    variant, reference = _name(row["variant"], row["texts"]), _name(row["reference"], row["reference_texts"])
    interval = (
        f"no interval, {row['no_interval']}"
        if row["low"] is None
        else f"{points(row['difference'])} points [{points(row['low'])}, {points(row['high'])}]"
    )
    basis = f"{interval}{'' if conclusion.p is None else f', corrected p {_p(conclusion.p)}'}; {_units(row)}"
    match conclusion.reason:
        case ContrastReason.RAISES | ContrastReason.LOWERS:
            change = conclusion.reason.name.lower()
            text = f"{variant} {change} strict accuracy compared with {reference} ({basis})"
        case ContrastReason.WITHIN_MARGIN | ContrastReason.NEAR_MARGIN:
            bound = points(margin, sign=False)
            text = (
                f"{variant} and {reference} are equivalent in strict accuracy, within {bound} points either way "
                f"({basis})"
            )
        case _:
            text = f"whether {variant} and {reference} differ in strict accuracy is undecided ({basis})"
    if conclusion.reason is ContrastReason.NEAR_MARGIN:
        # Two one-sided tests at 5 % go with the 90 % interval.
        text += "; the 95 % interval reaches beyond that, the 90 % interval that the verdict follows from does not"
    if row["family"] != "primary":
        text = f"Secondary: {text}"
    sentence = f"{text[0].upper()}{text[1:]}"
    about = f"accuracy:{row['variant']}-{row['reference']}"
    return stated(about, conclusion, sentence if sentence.endswith(".") else f"{sentence}.", digits=6)


def _name(variant: str, texts: int) -> str:
    match Wording.of(variant, texts):
        case Wording.NO_TEXT:
            # Against it every difference holds the effect of any added text: the sentence says so.
            return f"no added text ({CONTROL})"
        case Wording.UNKNOWN_TEXTS:
            return f"the text of {variant} used here"
        case Wording.ONE_TEXT:
            return f"this text of {variant}"
        case _:
            return variant


def _units(row: dict[str, Any]) -> str:
    questions = f"{row['n']} question{'' if row['n'] == 1 else 's'}"
    if row["groups"] is not None:
        questions += f" from {row['groups']} groups"
    texts = max(row["texts"], row["reference_texts"]) if row["unit"] == "texts" else 1
    whose = "" if row["texts"] > 1 or texts == 1 else f" of {row['reference']}"
    return f"{texts} texts{whose}, {questions}" if texts > 1 else questions


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"
