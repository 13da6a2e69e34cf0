"""What the probes show and what they cannot, in plain sentences."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from emoprobe.results.statement import Statement, Verdict

TITLES = {
    "valence": "Valence (negative against positive variants)",
    "correct": "Correctness of the answer",
    "variant": "The variant",
}
ADDED = "over length, truncation, format and variant, and at response positions the words of the response,"


def statements(tests: pd.DataFrame, transfer: pd.DataFrame) -> list[Statement]:
    """A statement for each target, and a note on the transfers of valence.

    Args:
        tests: the table `probe_tests`.
        transfer: the table `probe_transfer`.
    """
    found = [
        {"valence": _valence, "correct": _correct, "variant": _variant}[row["target"]](row) for row in _records(tests)
    ]
    return found + _transfers(tests, transfer)


def _records(tests: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with None for what is missing."""
    values = tests.astype(object).where(tests.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in values.to_dict("records")]


def _valence(row: dict[str, Any]) -> Statement:
    title = TITLES["valence"]
    if row["auroc"] is None:
        return _statement(row, "note", f"{title}: a verdict is not reachable ({row['reason']}).")
    level = (
        "on variants and questions that it was not trained on, a probe whose cell is chosen inside of each training "
        f"set tells negative from positive with AUROC {row['auroc']:.2f}; length, truncation and format reach "
        f"{row['nuisance_auroc']:.2f}, a difference of means {row['diff_means_auroc']:.2f}"
    )
    ways = "all" if row["exact"] else "random"
    test = (
        f"Over {ways} {row['permutations']} ways to deal the valences to {row['units']} variants and the largest of "
        f"{row['cells']} cells, p = {row['p']:.2g}."
    )
    if row["verdict"] == "note":
        return _statement(
            row, "note", f"{title}: a verdict is not reachable ({row['reason']}). For the record, {level}."
        )
    verdict = "can be read off" if row["verdict"] == "found" else "is not shown to be readable from"
    ending = f" (mostly {_cell(row)})" if row["verdict"] == "found" else ""
    return _statement(row, row["verdict"], f"{title} {verdict} the activations{ending}: {level}. {test}")


def _correct(row: dict[str, Any]) -> Statement:
    title = TITLES["correct"]
    if row["auroc"] is None:
        return _statement(row, "note", f"{title}: a verdict is not reachable ({row['reason']}).")
    gain = (
        f"the activations add {row['added']:+.2f}{_interval(row, 'added')} to an AUROC of {row['nuisance_auroc']:.2f} "
        f"{ADDED} on questions that were held out; alone they reach {row['auroc']:.2f}{_interval(row, 'auroc')}"
    )
    test = (
        f"Permuting blocks of questions {row['permutations'] - 1} times, over the largest of {row['cells']} cells, "
        f"p = {row['p']:.2g}"
    )
    if row["p_untruncated"] is not None:
        test += f"; on answers that were not cut off p = {row['p_untruncated']:.2g}"
    if row["verdict"] == "note":
        return _statement(
            row, "note", f"{title}: a verdict is not reachable ({row['reason']}). For the record, {gain}."
        )
    if row["verdict"] == "found":
        text = (
            f"{title} can be read off the activations better than off the answer's shape (mostly {_cell(row)}): {gain}."
        )
    else:
        text = f"{title} is not shown to be readable from the activations beyond the answer's shape: {gain}."
    return _statement(row, row["verdict"], f"{text} {test}.")


def _variant(row: dict[str, Any]) -> Statement:
    if row["auroc"] is None:
        return _statement(row, "note", f"{TITLES['variant']}: there is no probe ({row['reason']}).")
    text = (
        f"Manipulation check: {TITLES['variant'].lower()} is told apart with AUROC {row['auroc']:.2f} in the best of "
        f"{row['cells']} cells ({_cell(row)}). Prompts that differ are bound to be told apart, so this is no finding."
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
            f"by variant left out from {least['auroc']:.2f} ({least['train']}) to {variants['auroc'].max():.2f}"
        )
    moved = own[(own["kind"] == "position") & (own["train"] == cell["position"]) & (own["test"] != cell["position"])]
    if len(moved):
        best = moved.loc[moved["auroc"].idxmax()]
        parts.append(f"at other positions at best {best['auroc']:.2f} ({best['test']})")
    if not parts:
        return []
    text = (
        f"The probe of valence at {_cell(dict(cell))}: AUROC {'; '.join(parts)}. These are descriptions without a test."
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
        estimate=_value(row[estimate]),
        low=_value(row["added_low"]) if estimate == "added" else None,
        high=_value(row["added_high"]) if estimate == "added" else None,
        p=_value(row["p"]) if tested else None,
        n=n,
    )


def _cell(row: dict[str, Any]) -> str:
    return f"layer {int(row['layer'])}, {row['position']}, {row['hook_point']}"


def _interval(row: dict[str, Any], name: str) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"


def _value(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _number(value: Any) -> int | None:
    return None if value is None else int(value)
