"""What the answers allow to conclude at all: power, truncation, floors and ceilings, failures, noise, the plan."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from emoprobe.config.section import CONTROL, FILLER
from emoprobe.report.statements.behaviour import number, points
from emoprobe.results.preregistration import PowerRow, Preregistration
from emoprobe.results.statement import Statement

NOTEWORTHY = 0.1  # a share of answers from which it is told
HEADROOM = 0.05  # an accuracy this near to 0 or 1 leaves little to see


def notes(
    trajectories: pd.DataFrame,
    accuracy: pd.DataFrame,
    tests: pd.DataFrame,
    consistency: pd.DataFrame,
    plan: Preregistration | None,
    deviations: Sequence[str] = (),
) -> list[Statement]:
    """Notes on the data, those that there is a reason for.

    Args:
        trajectories: the table `trajectories`, and so on.
        accuracy: one row a variant.
        tests: the table `paired_tests`.
        consistency: one row a pair of variants.
        plan: what was planned; None: there is no plan.
        deviations: what differs from it.
    """
    found = [
        *_plan(plan, deviations),
        *([] if plan is None else _power(plan)),
        *([] if plan is None else _token_match(plan)),
        *_references(tests, [str(name) for name in accuracy["variant"]]),
        *_groups(trajectories, tests),
        *_headroom(accuracy),
        *_truncation(trajectories, accuracy),
        *_extraction(accuracy),
        *_lenient(tests),
        *_failures(accuracy),
        *_noise(consistency),
    ]
    return [Statement(about=f"data:{about}", verdict="note", text=text, estimate=value) for about, text, value in found]


Note = tuple[str, str, float | None]


def _plan(plan: Preregistration | None, deviations: Sequence[str]) -> list[Note]:
    if plan is None:
        return [
            (
                "plan",
                "There is no plan from before the run: comparisons follow the defaults, and their power is unknown.",
                None,
            )
        ]
    if not deviations:
        return [("plan", f"The analysis follows the plan from before the run (sha256 {plan.sha256[:12]}).", None)]
    return [
        ("plan", f"The analysis deviates from its plan (sha256 {plan.sha256[:12]}): {'; '.join(deviations)}.", None)
    ]


def _power(plan: Preregistration) -> list[Note]:
    if not plan.power:
        return []
    first = plan.power[0]
    subject = "a tone" if first.texts > 1 else "a single text"
    texts = f"{first.texts} texts a tone and " if first.texts > 1 else ""
    rows = [row for row in (plan.power if first.texts > 1 else plan.power[:1]) if row.detectable is not None]
    found: list[Note] = []
    if rows:
        found.append(
            (
                "power",
                f"Stated before the run, for {texts}{first.questions} questions: a difference between {subject} and "
                f"{first.reference} is noticed in at least {first.power:.0%} of runs if it is at least "
                f"{', or '.join(map(_reach, rows))}. Smaller ones may well go unnoticed.",
                first.detectable,
            )
        )
    if not any(row.reachable for row in plan.power):
        found.append(
            (
                "reach",
                f"Not reachable at this n: with {first.questions} questions no difference, however large, is noticed "
                f"in {first.power:.0%} of runs.",
                None,
            )
        )
    if first.texts < 2:
        found.append(("texts", "Needs more texts: with one text each, no sentence here speaks for a tone.", None))
    else:
        limited = [row for row in plan.power if row.needs_more_texts]
        if limited:
            row = limited[0]
            limit = "no difference" if row.limit is None else f"no difference below {points(row.limit, False)} points"
            found.append(
                (
                    "texts",
                    f"Needs more texts: where the texts of a tone differ by {row.text_deviation:g} logit, {limit} is "
                    f"noticed in {row.power:.0%} of runs with {row.texts} texts, however many questions there are.",
                    row.limit,
                )
            )
    return found


def _reach(row: PowerRow) -> str:
    """The difference that is noticed; the row has one."""
    what = "" if row.detectable is None else f"{points(row.detectable, False)} points"
    if row.texts < 2:
        return what
    return f"{what} where the texts of one tone " + (
        "all have the same effect" if row.text_deviation == 0 else f"differ by {row.text_deviation:g} logit"
    )


def _token_match(plan: Preregistration) -> list[Note]:
    unmatched = [row for row in plan.token_match if not row.matched]
    if not unmatched:
        return []
    listed = ", ".join(f"{row.variant} {row.ratio:.2f}" for row in unmatched)
    return [
        (
            "tokens",
            f"Length is not held equal: mean tokens of texts relative to {plan.primary_reference} are {listed}, "
            f"beyond the tolerance of {plan.token_tolerance:.0%}.",
            None,
        )
    ]


def _references(tests: pd.DataFrame, names: Sequence[str]) -> list[Note]:
    primary = tests[tests["family"] == "primary"]
    if primary.empty:
        lacking = f"one variant, {names[0]}" if len(names) == 1 else f"no variant to compare with ({CONTROL}, {FILLER})"
        return [("references", f"Nothing is compared: there is {lacking}.", None)]
    if not (primary["reference"] == CONTROL).any():
        return []
    return [
        (
            "references",
            "There is no filler of neutral texts, so a tone cannot be told from the effect of any added text.",
            None,
        )
    ]


def _groups(trajectories: pd.DataFrame, tests: pd.DataFrame) -> list[Note]:
    known = trajectories[["sample_id", "group"]].drop_duplicates().dropna() if "group" in trajectories else None
    if known is None or not known["group"].duplicated().any():
        return []
    count = int(known["group"].nunique())
    if tests["groups"].notna().any():
        text = (
            f"Questions come from {count} groups, such as templates. What a group shares widens every interval of "
            "accuracy; the power that was stated before the run does not know of it and is that of separate questions."
        )
    else:
        text = (
            f"Questions come from {count} group{'s' if count > 1 else ''}: too few to speak for others, so comparisons "
            "are about questions of these groups."
        )
    return [("groups", text, float(count))]


def _headroom(accuracy: pd.DataFrame) -> list[Note]:
    right, n = int(accuracy["correct"].sum()), int(accuracy["n"].sum())
    if n == 0:
        return [("floor", "No trajectory has a grade.", None)]
    share = right / n
    if right == 0:
        text = "No answer is correct, so tones cannot be told apart by accuracy: equal scores here say nothing of them."
    elif right == n:
        text = (
            "Every answer is correct, so tones cannot be told apart by accuracy: equal scores here say nothing of them."
        )
    elif share < HEADROOM or share > 1 - HEADROOM:
        text = f"{share:.1%} of all answers are correct: there is little room for a difference of accuracies."
    else:
        return []
    return [("floor" if share < 0.5 else "ceiling", text, number(share))]


def _truncation(trajectories: pd.DataFrame, accuracy: pd.DataFrame) -> list[Note]:
    known = trajectories["truncated"].dropna()
    share = float(known.astype(float).mean()) if len(known) else 0.0
    if share <= NOTEWORTHY and not (accuracy["truncated"] > NOTEWORTHY).any():
        return []
    most = _most(accuracy, "truncated")
    return [
        (
            "truncation",
            f"{share:.0%} of the completions were cut off at max_tokens ({most['variant']} most, "
            f"{most['truncated']:.0%}); a completion that was cut off counts as wrong. The rows `untruncated` of "
            "paired_tests leave such questions out.",
            number(share),
        )
    ]


def _extraction(accuracy: pd.DataFrame) -> list[Note]:
    unmarked = accuracy["last_number"]
    if not (unmarked > NOTEWORTHY).any():
        return []
    most = _most(accuracy, "last_number")
    return [
        (
            "extraction",
            f"Up to {most['last_number']:.0%} of a variant's answers ({most['variant']}) are unmarked, a last number "
            "alone; they are wrong strictly and graded by that number leniently.",
            number(most["last_number"]),
        )
    ]


def _lenient(tests: pd.DataFrame) -> list[Note]:
    """Where the grade matters: the lenient difference lies outside of the strict one's interval."""
    rows = tests.to_dict(orient="records")
    lenient = {(row["variant"], row["reference"]): row["difference"] for row in rows if row["measure"] == "lenient"}
    apart = [
        f"{row['variant']}-{row['reference']} {points(other)} instead of {points(row['difference'])} points"
        for row in rows
        if row["family"] == "primary" and not pd.isna(row["low"])
        # A lenient difference is there wherever a strict one is.
        if not row["low"] <= (other := lenient[row["variant"], row["reference"]]) <= row["high"]
    ]
    return (
        [("lenient", f"Graded leniently, differences come out otherwise: {', '.join(apart)}.", None)] if apart else []
    )


def _most(accuracy: pd.DataFrame, column: str) -> dict[Hashable, Any]:
    """The row of the variant with the largest value."""
    rows = accuracy.dropna(subset=[column]).to_dict(orient="records")
    return max(rows, key=lambda row: float(row[column]))


def _failures(accuracy: pd.DataFrame) -> list[Note]:
    failed = accuracy[accuracy["failures"] > 0]
    if failed.empty:
        return []
    listed = ", ".join(
        f"{row['variant']} {row['failures']} (accuracy between {row['if_failures_wrong']:.3f} and "
        f"{row['if_failures_right']:.3f})"
        for row in failed.to_dict(orient="records")
    )
    return [
        (
            "failures",
            f"No server answered {int(failed['failures'].sum())} requests: {listed}. A verdict stands only if it holds "
            "however those would have been answered.",
            float(failed["failures"].sum()),
        )
    ]


def _noise(consistency: pd.DataFrame) -> list[Note]:
    own = consistency[consistency["variant"] == consistency["other"]]["own_agreement"].dropna()
    if own.empty:
        return []
    noise = 1 - float(own.mean())
    return [
        (
            "noise",
            f"Two draws of one variant on one question disagree in {noise:.0%} of cases: sampling alone makes about "
            "that many flips between variants that are alike.",
            number(noise),
        )
    ]
