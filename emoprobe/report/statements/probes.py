"""What the probes show and what they cannot, in plain sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd

from emoprobe.analysis.probes.probe_design import ALPHA
from emoprobe.report.statements.rows import finite, plain_rows
from emoprobe.results.statement import Statement, Verdict

TITLES = {
    "valence": "Valence (negative against positive variants)",
    "correct": "Correctness of the answer",
    "variant": "The variant",
}
CELLS = "combinations of layer, position and hook point"
CHANCE = "0.5 is chance, 1 is perfect"


def statements(tests: pd.DataFrame, transfer: pd.DataFrame) -> list[Statement]:
    """A statement for each target, and a note on the transfers of valence.

    Args:
        tests: the table `probe_tests`.
        transfer: the table `probe_transfer`.
    """
    found = [
        {"valence": _valence, "correct": _correct, "variant": _variant}[row["target"]](row) for row in plain_rows(tests)
    ]
    return found + _transfers(tests, transfer)


def _valence(row: dict[str, Any]) -> Statement:
    title = TITLES["valence"]
    if row["auroc"] is None:
        return _statement(row, "note", f"{title}: a verdict is not reachable ({row['reason']}).")
    level = (
        f"on a negative and a positive variant and on questions that it was not trained on, a probe tells the two "
        f"apart with AUROC {row['auroc']:.2f} ({CHANCE}); length, truncation and format reach "
        f"{row['nuisance_auroc']:.2f}, a plain difference of means {row['diff_means_auroc']:.2f}"
    )
    ways = f"all {row['permutations']}" if row["exact"] else f"{row['permutations']} random"
    test = (
        f"Of {ways} ways to deal the valences to {row['units']} variants, {round(row['p'] * row['permutations'])}, "
        f"the real one among them, do at least as well in the best of {row['cells']} {CELLS} (p = {row['p']:.2g})."
    )
    if row["verdict"] == "not_found" and row["p"] <= ALPHA:
        test += " But length, truncation and format do as well, so valence need not be what the probe reads."
    if row["verdict"] == "note":
        return _statement(
            row, "note", f"{title}: a verdict is not reachable ({row['reason']}). For the record, {level}."
        )
    verdict = "can be read off" if row["verdict"] == "found" else "is not shown to be readable from"
    ending = f" (most often at {_cell(row)})" if row["verdict"] == "found" else ""
    return _statement(row, row["verdict"], f"{title} {verdict} the activations{ending}: {level}. {test}")


def _correct(row: dict[str, Any]) -> Statement:
    title = TITLES["correct"]
    if row["auroc"] is None:
        return _statement(row, "note", f"{title}: a verdict is not reachable ({row['reason']}).")
    gain = (
        f"on questions that were held out, length, truncation, format and variant, and after the prompt the words of "
        f"the answer, reach AUROC {row['nuisance_auroc']:.2f} ({CHANCE}); the activations add "
        f"{row['added']:+.2f}{_interval(row)}, and reach {row['auroc']:.2f} alone"
    )
    test = (
        f"Chance alone does as well in the best of {row['cells']} {CELLS} with p = {row['p_permuted']:.2g} "
        f"(questions permuted {row['permutations'] - 1} times"
    )
    if row["p_untruncated"] is not None:
        test += f"; on answers that were not cut off p = {row['p_untruncated']:.2g}"
    test += ")"
    if row["verdict"] == "not_found" and row["p_permuted"] <= ALPHA:
        test += f", but {_what_is_missing(row)}"
    if row["verdict"] == "note":
        return _statement(
            row, "note", f"{title}: a verdict is not reachable ({row['reason']}). For the record, {gain}."
        )
    if row["verdict"] == "found":
        text = (
            f"{title} can be read off the activations better than off the answer's shape alone (most often at "
            f"{_cell(row)}): {gain}."
        )
    else:
        text = f"{title} is not shown to be readable from the activations beyond the answer's shape: {gain}."
    return _statement(row, row["verdict"], f"{text} {test}.")


def _variant(row: dict[str, Any]) -> Statement:
    if row["auroc"] is None:
        return _statement(row, "note", f"{TITLES['variant']}: there is no probe ({row['reason']}).")
    text = (
        f"Check of the manipulation: which variant it was can be told with AUROC {row['auroc']:.2f} ({CHANCE}) at "
        f"{_cell(row)}, the best of {row['cells']} {CELLS}. Prompts that differ are bound to be told apart, so this is "
        "no finding."
    )
    return _statement(row, "note", text)


def _transfers(tests: pd.DataFrame, transfer: pd.DataFrame) -> list[Statement]:
    """How the probe of valence fares elsewhere, in the cell that most training sets choose."""
    chosen = tests[(tests["target"] == "valence") & tests["layer"].notna()]
    if chosen.empty or transfer.empty:
        return []
    cell = chosen.iloc[0]
    own = transfer[
        (transfer["target"] == "valence")
        & (transfer["hook_point"] == cell["hook_point"])
        & (transfer["layer"] == cell["layer"])
    ]
    here = own[own["test"] == cell["position"]]
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
    moved = own[(own["kind"] == "position") & (own["train"] == cell["position"]) & (own["test"] != cell["position"])]
    if len(moved):
        best = moved.loc[moved["auroc"].idxmax()]
        parts.append(f"at other positions at best {best['auroc']:.2f} ({best['test']})")
    if not parts:
        return []
    text = (
        f"The probe of valence at {_cell(dict(cell))} elsewhere: AUROC {'; '.join(parts)}. These numbers describe; "
        "they are not tested."
    )
    return [Statement(about="probe:valence", verdict="note", text=text)]


def _statement(row: dict[str, Any], verdict: Verdict, text: str) -> Statement:
    about, n = f"probe:{row['target']}", _number(row.get("n"))
    tested = verdict in ("found", "not_found")
    estimate = "added" if row["target"] == "correct" else "auroc"
    return Statement(
        about=about,
        verdict=verdict,
        text=text,
        estimate=finite(row[estimate]),
        low=finite(row["added_low"]) if estimate == "added" else None,
        high=finite(row["added_high"]) if estimate == "added" else None,
        p=finite(row["p"]) if tested else None,
        n=n,
    )


def _cell(row: dict[str, Any]) -> str:
    return f"layer {int(row['layer'])}, {row['position']}, {row['hook_point']}"


def _interval(row: dict[str, Any]) -> str:
    low, high = row["added_low"], row["added_high"]
    return " (no interval below 20 groups of questions)" if low is None else f" [{low:.2f}, {high:.2f}]"


def _what_is_missing(row: dict[str, Any]) -> str:
    """Why there is no verdict although the permutations reject."""
    if row["added"] <= 0 or (row["added_untruncated"] is not None and row["added_untruncated"] <= 0):
        return "the area under the curve does not gain by it"
    if row["added_low"] is not None and row["added_low"] <= 0:
        return "the interval of the gain includes 0"
    return "not on answers that were not cut off"


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
