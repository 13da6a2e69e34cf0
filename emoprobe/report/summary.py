"""The headline numbers of an experiment: `report.json`, and the few lines that a run ends with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from emoprobe.report.statements.probes import statements as probe_statements
from emoprobe.results.layout import Layout
from emoprobe.results.tables import read_table


def report(layout: Layout) -> dict[str, Any]:
    """The content of `report.json`."""
    names = ("accuracy", "paired_tests", "consistency", "workers")
    found = {name: read_table(layout.root, name) for name in names}
    trajectories = read_table(layout.root, "trajectories")
    metadata = json.loads(layout.metadata.read_text(encoding="utf-8"))
    probed = layout.table("probe_tests").exists()
    tests = read_table(layout.root, "probe_tests") if probed else None
    said = probe_statements(tests, read_table(layout.root, "probe_transfer")) if tests is not None else []
    agreement = found["consistency"].iloc[0]
    return {
        "experiment": metadata["experiment_name"],
        "model": metadata["model"],
        "trajectories": len(trajectories),
        "samples": int(trajectories["sample_id"].nunique()),
        "truncated": _share(trajectories["truncated"]),
        "accuracy": records(found["accuracy"]),
        "paired_tests": records(found["paired_tests"]),
        "all_solve": int(agreement["all_solve"]),
        "none_solves": int(agreement["none_solves"]),
        "workers": records(found["workers"]),
        "probes": [] if tests is None else records(tests),
        "statements": [
            *statements(found["accuracy"], found["paired_tests"], trajectories),
            *(statement.text for statement in said),
        ],
    }


def statements(accuracy: pd.DataFrame, tests: pd.DataFrame, trajectories: pd.DataFrame) -> list[str]:
    """What this experiment shows and what it cannot, in plain sentences."""
    lines = []
    n = int(tests["n"].min()) if len(tests) else int(accuracy["n"].min())
    if len(tests):
        detectable = float(tests["detectable"].min())
        lines.append(
            f"With {n} samples and {len(tests)} comparisons, a difference to control of less than about "
            f"{100 * detectable:.0f} percentage points would mostly go unnoticed."
        )
        clear = tests[tests["p_holm"] < 0.05]
        if clear.empty:
            lines.append("No variant differs from control in accuracy beyond chance (McNemar, Holm-corrected, 5 %).")
        lines += [
            f"{row['variant']} differs from control by {100 * row['difference']:+.1f} percentage points "
            f"[{100 * row['low']:+.1f}, {100 * row['high']:+.1f}], corrected p = {row['p_holm']:.2g}."
            for row in records(clear)
        ]
    if float(accuracy["correct"].sum()) == 0:
        lines.append(
            "No answer is correct: this model is too weak for these questions to tell tones apart by accuracy."
        )
    elif int(accuracy["correct"].sum()) == int(accuracy["n"].sum()):
        lines.append("Every answer is correct: these questions are too easy to tell tones apart by accuracy.")
    cut = _share(trajectories["truncated"])
    if cut is not None and cut > 0.1:
        lines.append(
            f"{cut:.0%} of the completions were cut off at max_tokens, and an answer may have been cut off with them."
        )
    return lines


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as JSON objects, with null for what is missing."""
    return json.loads(table.to_json(orient="records", double_precision=6))  # type: ignore[no-any-return]


def _share(values: pd.Series) -> float | None:
    known = values.dropna()
    return round(float(known.astype(float).mean()), 6) if len(known) else None


def summary_text(path: Path) -> str:
    """A finished experiment in a few lines, from its `report.json`."""
    found = json.loads(path.read_text(encoding="utf-8"))
    width = max(len(row["variant"]) for row in found["accuracy"])
    lines = [
        "",
        f"{found['experiment']}: {found['trajectories']} trajectories of {found['model']['id']} "
        f"on {found['samples']} samples",
        f"  {'variant':{width}}  correct  accuracy  95 % interval  difference",
    ]
    for row in found["accuracy"]:
        interval = f"{row['low']:.3f}–{row['high']:.3f}"
        difference = "" if row["difference"] is None else f"{row['difference']:+.3f}"
        correct = f"{row['correct']}/{row['n']}"
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.3f}"
        lines.append(f"  {row['variant']:{width}}  {correct:>7}  {accuracy:>8}  {interval:>13}  {difference:>10}")
    lines += ["", *(f"  {line}" for line in found.get("statements", []))]
    lines += ["", f"  to read: {path.with_name('report.html')}   tables: {path.parent / 'tables'}/"]
    return "\n".join(lines)
