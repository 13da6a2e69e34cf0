"""Sentences on the probes."""

from __future__ import annotations

from typing import Any

import pandas as pd

from emoprobe.analysis.conclusion import plain_rows
from emoprobe.analysis.probes.probe_design import LEAST_UNITS, ProbeReason, conclude_probe
from emoprobe.report.statements import stated
from emoprobe.results.statement import Statement, Verdict

TITLES = {
    "valence": "Valence (negative against positive variants)",
    "correct": "Correctness of the answer",
    "variant": "The variant",
}
CELLS = "combinations of layer, position and hook point"
CHANCE = "0.5 is chance, 1 is perfect"
# Why correctness is not found although the permutations reject.
MISSING = {
    ProbeReason.NO_GAIN: ", but the area under the curve does not gain by it",
    ProbeReason.INTERVAL_INCLUDES_0: ", but the interval of the gain includes 0",
    ProbeReason.TRUNCATED_ONLY: ", but not on answers that were not cut off",
}


def statements(tests: pd.DataFrame, transfer: pd.DataFrame) -> list[Statement]:
    """Return a statement for each target, and a note on the transfers of valence.

    Args:
        tests: the table `probe_tests`.
        transfer: the table `probe_transfer`.
    """
    return [_target(row) for row in plain_rows(tests)] + _transfers(tests, transfer)


def _target(row: dict[str, Any]) -> Statement:
    conclusion = conclude_probe(row)
    title, level = TITLES[row["target"]], {"valence": _valence_level, "correct": _correct_level}.get(row["target"])
    match conclusion.reason:
        case ProbeReason.MANIPULATION_CHECK:
            text = (
                f"Check of the manipulation: which variant it was can be told with AUROC {row['auroc']:.2f} ({CHANCE}) "
                f"at {_cell(row)}, the best of {row['cells']} {CELLS}. Prompts that differ are bound to be told apart, "
                "so this is no finding."
            )
        case ProbeReason.NOT_PROBED:
            missing = "there is no probe" if level is None else "a verdict is not reachable"
            text = f"{title}: {missing} ({row['reason']})."
        case ProbeReason.OUT_OF_REACH:
            assert level is not None
            text = f"{title}: a verdict is not reachable ({row['reason']}). For the record, {level(row)}."
        case reason:
            assert isinstance(reason, ProbeReason)
            text = (_valence if row["target"] == "valence" else _correct)(title, row, reason)
    return stated(f"probe:{row['target']}", conclusion, text)


def _valence_level(row: dict[str, Any]) -> str:
    return (
        f"on a negative and a positive variant and on questions that it was not trained on, a probe tells the two "
        f"apart with AUROC {row['auroc']:.2f} ({CHANCE}); length, truncation and format reach "
        f"{row['nuisance_auroc']:.2f}, a plain difference of means {row['diff_means_auroc']:.2f}"
    )


def _valence(title: str, row: dict[str, Any], reason: ProbeReason) -> str:
    ways = f"all {row['permutations']}" if row["exact"] else f"{row['permutations']} random"
    test = (
        f"Of {ways} ways to deal the valences to {row['units']} variants, {round(row['p'] * row['permutations'])}, "
        f"the real one among them, do at least as well in the best of {row['cells']} {CELLS} (p = {row['p']:.2g})."
    )
    if reason is ProbeReason.NUISANCE:
        test += " But length, truncation and format do as well, so valence need not be what the probe reads."
    read = (
        f"can be read off the activations (most often at {_cell(row)})"
        if reason is ProbeReason.READABLE
        else "is not shown to be readable from the activations"
    )
    return f"{title} {read}: {_valence_level(row)}. {test}"


def _correct_level(row: dict[str, Any]) -> str:
    return (
        f"on questions that were held out, length, truncation, format and variant, and after the prompt the words of "
        f"the answer, reach AUROC {row['nuisance_auroc']:.2f} ({CHANCE}); the activations add "
        f"{row['added']:+.2f}{_interval(row)}, and reach {row['auroc']:.2f} alone"
    )


def _correct(title: str, row: dict[str, Any], reason: ProbeReason) -> str:
    test = (
        f"Chance alone does as well in the best of {row['cells']} {CELLS} with p = {row['p_permuted']:.2g} "
        f"(questions permuted {row['permutations'] - 1} times"
    )
    if row["p_untruncated"] is not None:
        test += f"; on answers that were not cut off p = {row['p_untruncated']:.2g}"
    test += f"){MISSING.get(reason, '')}"
    read = (
        f"can be read off the activations better than off the answer's shape alone (most often at {_cell(row)})"
        if reason is ProbeReason.READABLE
        else "is not shown to be readable from the activations beyond the answer's shape"
    )
    return f"{title} {read}: {_correct_level(row)}. {test}."


def _transfers(tests: pd.DataFrame, transfer: pd.DataFrame) -> list[Statement]:
    """How the probe of valence fares elsewhere, in the cell that most training sets choose."""
    chosen = tests[(tests["target"] == "valence") & tests["layer"].notna()]
    if chosen.empty or transfer.empty:
        return []
    cell = chosen.iloc[0]
    of_cell = transfer[
        (transfer["target"] == "valence")
        & (transfer["hook_point"] == cell["hook_point"])
        & (transfer["layer"] == cell["layer"])
    ]
    here = of_cell[of_cell["test"] == cell["position"]]
    parts = []
    texts, variants = here[here["kind"] == "text"]["auroc"], here[here["kind"] == "variant"]
    if len(texts):
        parts.append(f"on texts that were left out {texts.mean():.2f} (lowest of {len(texts)}: {texts.min():.2f})")
    if len(variants):
        least = variants.loc[variants["auroc"].idxmin()]
        parts.append(
            f"on variants that were left out from {least['auroc']:.2f} ({least['train']}) to "
            f"{variants['auroc'].max():.2f}"
        )
    moved = of_cell[of_cell["kind"].eq("position") & of_cell["train"].eq(cell["position"])]
    moved = moved[moved["test"] != cell["position"]]
    if len(moved):
        best = moved.loc[moved["auroc"].idxmax()]
        parts.append(f"at other positions at best {best['auroc']:.2f} ({best['test']})")
    if not parts:
        return []
    text = (
        f"The probe of valence at {_cell(dict(cell))} elsewhere: AUROC {'; '.join(parts)}. These numbers describe; "
        "they are not tested."
    )
    return [Statement(about="probe:valence", verdict=Verdict.NOTE, text=text)]


def _cell(row: dict[str, Any]) -> str:
    return f"layer {int(row['layer'])}, {row['position']}, {row['hook_point']}"


def _interval(row: dict[str, Any]) -> str:
    low, high = row["added_low"], row["added_high"]
    return f" (no interval below {LEAST_UNITS} groups of questions)" if low is None else f" [{low:.2f}, {high:.2f}]"
