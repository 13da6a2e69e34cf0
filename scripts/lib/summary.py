"""The headline numbers of an experiment: `report.json`, and the few lines that a run ends with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from scripts.lib.paths import Layout
from scripts.lib.tables import read_table


def report(layout: Layout) -> dict[str, Any]:
    """The content of `report.json`."""
    accuracy, workers = read_table(layout.table("accuracy")), read_table(layout.table("workers"))
    trajectories = read_table(layout.table("trajectories"))
    metadata = json.loads(layout.metadata.read_text(encoding="utf-8"))
    return {
        "experiment": metadata["experiment_name"],
        "model": metadata["model"],
        "trajectories": len(trajectories),
        "samples": int(trajectories["sample_id"].nunique()),
        "accuracy": records(accuracy),
        "workers": records(workers),
    }


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as JSON objects, with null for what is missing."""
    return json.loads(table.to_json(orient="records", double_precision=6))  # type: ignore[no-any-return]


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
    lines.append(f"  everything: {path.parent}/   headline numbers: {path}")
    return "\n".join(lines)
