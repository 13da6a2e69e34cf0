"""Sentences on steering."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from emoprobe.analysis.conclusion import plain_rows
from emoprobe.analysis.steering.direction_tests import DirectionReason, conclude_direction
from emoprobe.analysis.steering.mediation import MediationReason, conclude_mediation
from emoprobe.report.statements import stated
from emoprobe.results.statement import Statement

KINDS = {
    "tone": "the difference of means between {tone} and the reference",
    "probe": "the weights of a probe of {tone}",
    "orthogonal": "the direction of {tone} without what it shares with the reference's text",
    "feature": "a feature",
    "file": "a direction from a file",
}


def statements(tests: pd.DataFrame, mediation: pd.DataFrame) -> list[Statement]:
    """Return a statement for each tested direction, those of tones first, and a note on each ablation.

    Args:
        tests: the table `steering_tests`.
        mediation: the table `steering_mediation`.
    """
    rows = sorted(plain_rows(tests), key=lambda row: bool(row["family"] != "tone"))
    primary = [row for row in plain_rows(mediation) if row["outcome"] == "log_p_gold"]
    return [*(_tested(row, tests) for row in rows), *(_mediated(row) for row in primary)]


def _tested(row: dict[str, Any], tests: pd.DataFrame) -> Statement:
    conclusion = conclude_direction(row)
    kind = KINDS.get(row["family"], row["family"]).format(tone=row["tone"])
    title = f"Steering along {row['direction']} ({kind})"
    about = f"steering:{row['direction']}"
    if conclusion.reason is DirectionReason.NOT_COMPARED:
        return stated(about, conclusion, f"{title}: a verdict is not reachable ({row['reason']}).")
    # A direction without p takes no part in the correction.
    family = int(tests.loc[tests["family"] == row["family"], "p"].notna().sum())
    effect = f"{_effect(row)} {_rank(row, family)}"
    match conclusion.reason:
        case DirectionReason.OUT_OF_REACH:
            text = (
                f"{title}: a verdict is not reachable ({row['reason']}). For the record, the largest effect: {effect}"
            )
        case DirectionReason.RAISES | DirectionReason.LOWERS:
            verb = conclusion.reason.name.lower()
            text = f"{title} {verb} log p(gold) more than {_others(row)} change it: {effect}{_accuracy(row)}"
        case reason:
            but = " But the interval includes 0." if reason is DirectionReason.INTERVAL_INCLUDES_0 else ""
            text = (
                f"{title} is not shown to change log p(gold) more than {_others(row)} do; its largest effect: "
                f"{effect}{but}{_power(row)}"
            )
    return stated(about, conclusion, text)


def _effect(row: dict[str, Any]) -> str:
    cells = f"all {row['cells']} cells" if row["cells"] > 1 else "the one cell"
    interval = (
        "(no interval)"
        if row["low"] is None
        else f"[{row['low']:+.2f}, {row['high']:+.2f}], an interval for {cells} with coherent text,"
    )
    return (
        f"{row['estimate']:+.2f} nats {interval} in {row['variant']} at {_layers(row['layers'])}, "
        f"dose {row['dose']:+g}, on {row['n']} held-out questions, of which {row['wrong_way']:.0%} move the other way."
    )


def _layers(layers: str) -> str:
    return f"layers {layers.replace('+', ' and ')}" if "+" in layers else f"layer {layers}"


def _others(row: dict[str, Any]) -> str:
    """Name the directions that a direction is compared with."""
    return "random and shuffled-label directions" if row["shuffled"] else "random directions"


def _rank(row: dict[str, Any], family: int) -> str:
    corrected = f", {row['p_holm']:.2g} corrected over {family} directions" if family > 1 else ""
    text = f"{_as_far(row['p_random'], row['controls'])} random directions of the same norm"
    if row["shuffled"]:
        text += f" and {_as_far(row['p_shuffled'], row['shuffled']).lower()} shuffled-label ones"
    verb = "reaches" if text.startswith("1 ") and not row["shuffled"] else "reach"
    return f"{text} {verb} as far in their best coherent cells, on the same questions (p = {row['p']:.2g}{corrected})."


def _as_far(p: float, others: int) -> str:
    """Return how many of the others reach as far, by the rank among them."""
    return f"{round(p * (1 + others)) - 1 or 'None'} of {others}"


def _accuracy(row: dict[str, Any]) -> str:
    if row["correct"] is None:
        return ""
    interval = "" if row["correct_low"] is None else f" [{row['correct_low']:+.2f}, {row['correct_high']:+.2f}]"
    return f" Strict accuracy changes by {row['correct']:+.2f}{interval} there (secondary, not tested)."


def _power(row: dict[str, Any]) -> str:
    if row["detectable"] is None:
        return " The effect that would have been found cannot be estimated."
    return (
        f" An effect of {row['detectable']:.2f} nats at {_layers(row['detectable_layers'])}, dose "
        f"{row['detectable_dose']:+g}, would have been found with 80 %."
    )


def _mediated(row: dict[str, Any]) -> Statement:
    conclusion = conclude_mediation(row)
    about, title = f"mediation:{row['direction']}", f"Ablating {row['direction']} at {_layers(row['layers'])}"
    if conclusion.reason is MediationReason.NO_QUESTIONS:
        text = f"{title}: no question has all of the trajectories that a comparison needs."
        return stated(about, conclusion, text)
    both = "in both" if row["reference_ablated"] else f"in {row['tone']} alone"
    text = (
        f"{title} ({both}) changes the effect of {row['tone']} on log p(gold), against {row['reference']}, from "
        f"{row['effect']:+.2f}{_ends(row['effect_low'], row['effect_high'])} to {row['ablated']:+.2f} nats, by "
        f"{row['change']:+.2f}{_ends(row['low'], row['high'])}, on {row['n']} questions"
    )
    if row["controls"]:
        text += (
            f"; of {row['controls']} random directions 95 % change it by {row['control_low']:+.2f} to "
            f"{row['control_high']:+.2f}"
        )
    if conclusion.reason is MediationReason.SHARE:
        text += f". That is {row['share']:.0%}{_percent(row['share_low'], row['share_high'])} of the effect"
    else:
        text += ". No share is given, as the effect of the tone itself is not shown"
    if not row["coherent"]:
        text += ". Under the ablation the text is not coherent, so what it takes away is more than a tone"
    text += ". This is described, not tested; the direction was fitted on the same texts."
    return stated(about, conclusion, text)


def _ends(low: Any, high: Any) -> str:
    return " (no interval)" if low is None else f" [{low:+.2f}, {high:+.2f}]"


def _percent(low: Any, high: Any) -> str:
    return " (no interval)" if low is None or not math.isfinite(high) else f" [{low:.0%}, {high:.0%}]"
