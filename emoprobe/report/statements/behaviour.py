"""What the accuracies show, in one sentence a comparison.

`tests/calibration` counts how often such a sentence is false where the truth is known.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, cast

import pandas as pd

from emoprobe.analysis.contrasts import PRIMARY_MEASURE
from emoprobe.config.section import CONTROL
from emoprobe.results.statement import Statement, Verdict


def comparisons(tests: pd.DataFrame, margin: float) -> list[Statement]:
    """A sentence for each comparison of strict accuracy, in the order of the table: the primary ones first.

    Args:
        tests: the table `paired_tests`.
        margin: the margin of equivalence that it was made with.
    """
    strict = tests[tests["measure"] == PRIMARY_MEASURE]
    return [_comparison(row, margin) for row in strict.to_dict(orient="records")]


def subject(row: dict[Hashable, Any]) -> str:
    """Who a comparison speaks of: a tone where it has several texts, this text of it where it has one."""
    return _called(str(row["variant"]), row["texts"])


def points(value: float, sign: bool = True) -> str:
    """A difference of accuracies in percentage points."""
    # Adding 0 turns -0.0 into 0.0.
    rounded = round(100 * value, 1) + 0.0
    return f"{rounded:+.1f}" if sign else f"{rounded:.1f}"


def _comparison(row: dict[Hashable, Any], margin: float) -> Statement:
    verdict = cast(Verdict, row["verdict"])
    who, whom = subject(row), _object(row)
    known = not pd.isna(row["low"])
    estimate = (
        f"{points(row['difference'])} points [{points(row['low'])}, {points(row['high'])}]"
        if known
        else f"no interval, {row['no_interval']}"
    )
    equivalent = verdict == "equivalent"
    p = row["p_equivalent_holm"] if equivalent else row["p_holm"]
    basis = f"{estimate}{'' if pd.isna(p) else f', corrected p {_p(p)}'}; {_basis(row)}"
    if verdict == "different":
        change = "raises" if row["difference"] > 0 else "lowers"
        text = f"{who} {change} strict accuracy compared with {whom} ({basis})"
    elif equivalent:
        bound = points(margin, sign=False)
        text = f"{who} and {whom} are equivalent in strict accuracy, within {bound} points either way ({basis})"
        if known and not -margin < row["low"] <= row["high"] < margin:
            # Two one-sided tests at 5 % go with the 90 % interval.
            text += "; the 95 % interval reaches beyond that, the 90 % interval that the verdict follows from does not"
    else:
        text = f"whether {who} and {whom} differ in strict accuracy is undecided ({basis})"
    prefix = "" if row["family"] == "primary" else "Secondary: "
    return Statement(
        about=f"accuracy:{row['variant']}-{row['reference']}",
        verdict=verdict,
        text=sentence(f"{prefix}{text}"),
        estimate=number(row["difference"]),
        low=number(row["low"]),
        high=number(row["high"]),
        p=number(p),
        n=int(row["n"]),
    )


def _object(row: dict[Hashable, Any]) -> str:
    return _called(str(row["reference"]), row["reference_texts"])


def _called(name: str, texts: int) -> str:
    if name == CONTROL:
        # Against it every difference holds the effect of any added text: the sentence says so.
        return f"no added text ({CONTROL})"
    if texts == 0:
        # Which question had which text is not known, so that nothing is said of other texts.
        return f"the text of {name} used here"
    return f"this text of {name}" if texts == 1 else name


def _basis(row: dict[Hashable, Any]) -> str:
    """What the method counted."""
    questions = f"{row['n']} question{'' if row['n'] == 1 else 's'}"
    if not pd.isna(row["groups"]):
        questions += f" from {row['groups']} groups"
    texts = max(row["texts"], row["reference_texts"]) if row["unit"] == "texts" else 1
    whose = "" if row["texts"] > 1 or texts == 1 else f" of {row['reference']}"
    return f"{texts} texts{whose}, {questions}" if texts > 1 else questions


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"= {value:.2g}"


def sentence(text: str) -> str:
    """A sentence out of a clause."""
    opening = text[0].upper() + text[1:]
    return opening if opening.endswith(".") else f"{opening}."


def number(value: Any) -> float | None:
    """A number of a statement; null where there is none."""
    return None if pd.isna(value) else round(float(value), 6)
