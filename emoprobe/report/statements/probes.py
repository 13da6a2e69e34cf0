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
    "correct_within": "Right against wrong answers to the same question",
    "variant": "The variant",
}
CELLS = "combinations of layer, position and hook point"
CHANCE = "0.5 is chance, 1 is perfect"
BASELINES = (
    "length and numbers of the question, length, truncation and format of the answer, the variant and, after the "
    "prompt, the words of the answer"
)
LIMIT = "No baseline covers what else the texts and questions are about, such as a topic in other words."
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
    title, level = TITLES[row["target"]], LEVELS.get(row["target"])
    match conclusion.reason:
        case ProbeReason.MANIPULATION_CHECK:
            text = (
                f"Manipulation check: a probe reads the variant from the activations with AUROC {row['auroc']:.2f} "
                f"({CHANCE}) at {_cell(row)}, the best of {row['cells']} {CELLS}. Prompts that differ always give "
                "different activations, so this is no finding."
            )
        case ProbeReason.NOT_PROBED:
            missing = "there is no probe" if level is None else "a verdict is not reachable"
            text = f"{title}: {missing} ({row['reason']})."
        case ProbeReason.OUT_OF_REACH:
            assert level is not None
            text = f"{title}: a verdict is not reachable ({row['reason']}). For the record, {level(row)}."
        case reason:
            assert isinstance(reason, ProbeReason)
            text = SENTENCES[row["target"]](title, row, reason)
    return stated(f"probe:{row['target']}", conclusion, text)


def _valence_level(row: dict[str, Any]) -> str:
    return (
        f"on a negative and a positive variant and on questions that it was not trained on, a probe tells the two "
        f"apart with AUROC {row['auroc']:.2f} ({CHANCE}){_without(row)}; a plain difference of means reaches "
        f"{row['diff_means_auroc']:.2f}{_words(row)}"
    )


def _without(row: dict[str, Any]) -> str:
    """Return what was taken out of the activations; a table of an earlier version does not say."""
    if not row["controlled"]:
        return ""
    return f" after {row['controlled']} were taken out, which reach {row['nuisance_auroc']:.2f} alone"


def _words(row: dict[str, Any]) -> str:
    return "" if row["words_auroc"] is None else f", the words of the texts {row['words_auroc']:.2f}"


def _valence(title: str, row: dict[str, Any], reason: ProbeReason) -> str:
    left_out = (
        f" No verdict is possible where negative and positive variants differ too much in something else: "
        f"{row['inseparable']}."
        if row["inseparable"]
        else ""
    )
    if reason is ProbeReason.NOT_SEPARABLE:
        return (
            f"{title} cannot be separated from simpler explanations.{left_out} For the record, {_valence_level(row)}."
        )
    ways = f"all {row['permutations']}" if row["exact"] else f"{row['permutations']} random"
    count = round(row["p"] * row["permutations"])
    as_well = "only the real one does" if count == 1 else f"{count}, the real one among them, do"
    test = (
        f"Of {ways} ways to deal the valences to {row['units']} variants, {as_well} at least as well in the best of "
        f"{row['cells']} {CELLS} (p = {row['p']:.2g})."
    )
    if reason is not ProbeReason.READABLE:
        return f"{title} is not shown to be readable from the activations: {_valence_level(row)}. {test}{left_out}"
    beyond = f", not explained by {row['controlled']}" if row["controlled"] else ""
    return (
        f"{title} can be read off the activations{beyond} (most often at {_cell(row)}): {_valence_level(row)}. "
        f"{test}{left_out} {LIMIT}"
    )


def _correct_level(row: dict[str, Any]) -> str:
    return (
        f"on questions that were held out, {BASELINES} reach AUROC {row['nuisance_auroc']:.2f} ({CHANCE}); the "
        f"activations add {row['added']:+.2f}{_interval(row)}, and reach {row['auroc']:.2f} alone"
    )


def _correct(title: str, row: dict[str, Any], reason: ProbeReason) -> str:
    test = (
        f"Labels permuted over questions ({row['permutations'] - 1} times) do as well in the best of {row['cells']} "
        f"{CELLS} with p = {row['p_permuted']:.2g}"
    )
    if row["p_untruncated"] is not None:
        test += f" (on answers that were not cut off p = {row['p_untruncated']:.2g})"
    test += MISSING.get(reason, "")
    read = (
        f"can be predicted from the activations, not explained by {BASELINES} (most often at {_cell(row)})"
        if reason is ProbeReason.READABLE
        else "is not shown to be predictable from the activations beyond simpler explanations"
    )
    limit = f" This may be a matter of which question it was. {LIMIT}" if reason is ProbeReason.READABLE else ""
    return f"{title} {read}: {_correct_level(row)}. {test}.{limit}"


def _within_level(row: dict[str, Any]) -> str:
    return (
        f"of the pairs of a right and a wrong answer to a question that was held out, length, truncation, format, "
        f"words and variant put {row['nuisance_auroc']:.2f} in order ({CHANCE}); the activations add "
        f"{row['added']:+.2f}{_interval(row)}, and reach {row['auroc']:.2f} alone"
    )


def _within(title: str, row: dict[str, Any], reason: ProbeReason) -> str:
    read = (
        f"can be distinguished by the activations at {_cell(row)}, not explained by the question, the variant, or "
        "length, format and words of the answer"
        if reason is ProbeReason.READABLE
        else "are not shown to be distinguished by the activations"
    )
    return (
        f"{title} {read}: {_within_level(row)}. Labels permuted within questions do as well in the best of "
        f"{row['cells']} {CELLS} with p = {row['p_permuted']:.2g} ({row['units']} questions with both outcomes)"
        f"{MISSING.get(reason, '')}."
    )


LEVELS = {"valence": _valence_level, "correct": _correct_level, "correct_within": _within_level}
SENTENCES = {"valence": _valence, "correct": _correct, "correct_within": _within}


def _transfers(tests: pd.DataFrame, transfer: pd.DataFrame) -> list[Statement]:
    """Describe the transfer of the valence probe, in the cell that most training sets choose."""
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
