"""The headline numbers of an experiment: `report.json`, and the few lines that a run ends with."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd

from emoprobe.analysis.plan import deviations
from emoprobe.config.experiment import Config
from emoprobe.report.statements import behaviour, data, features, folder, probes
from emoprobe.results.layout import Layout
from emoprobe.results.plan import AnalysisPlan
from emoprobe.results.record import read_json
from emoprobe.results.statement import Statement
from emoprobe.results.tables import read_table

WIDTH = 110  # of the lines that a run ends with


def report(config: Config, layout: Layout) -> dict[str, Any]:
    """The content of `report.json`; what a folder does not tell of itself is null."""
    names = ("trajectories", "accuracy", "paired_tests", "consistency", "workers")
    found = {name: read_table(layout.root, name) for name in names}
    trajectories = found["trajectories"]
    metadata = read_json(layout.metadata) if layout.metadata.exists() else {}
    for name in ("probe_tests", "probe_transfer", "autoencoders", "features"):
        if layout.table(name).exists():
            found[name] = read_table(layout.root, name)
    agreement = found["consistency"].iloc[0]
    plan = AnalysisPlan.read_file(layout.plan) if layout.plan.exists() else None
    return {
        "experiment": config.experiment.name,
        "model": _model(config, layout, metadata),
        "trajectories": len(trajectories),
        "samples": int(trajectories["sample_id"].nunique()),
        "truncated": _share(trajectories["truncated"]),
        "plan_sha256": None if plan is None else plan.sha256,
        "accuracy": records(found["accuracy"]),
        "paired_tests": records(found["paired_tests"]),
        "all_solve": int(agreement["all_solve"]),
        "none_solves": int(agreement["none_solves"]),
        "workers": records(found["workers"]),
        "probes": records(found["probe_tests"]) if "probe_tests" in found else [],
        "autoencoders": records(found["autoencoders"]) if "autoencoders" in found else [],
        "statements": [statement.values() for statement in statements(found, config, plan, layout)],
    }


def statements(
    found: dict[str, pd.DataFrame], config: Config, plan: AnalysisPlan | None, layout: Layout
) -> list[Statement]:
    """What this experiment shows and what it cannot: comparisons, probes, what the data allow; secondary ones last.

    Args:
        found: the tables by name.
        config: the config of the analysis.
        plan: what was planned before the run.
        layout: the experiment's folder, whose files may be missing.
    """
    changed = [] if plan is None else deviations(plan, config, found["trajectories"])
    said = probes.statements(found["probe_tests"], found["probe_transfer"]) if "probe_tests" in found else []
    if "features" in found:
        said = [*said, *features.statements(found["autoencoders"], found["features"])]
    notes = data.notes(
        found["trajectories"], found["accuracy"], found["paired_tests"], found["consistency"], plan, changed
    )
    tests, margin = found["paired_tests"], config.analysis.margin
    primary, secondary = (
        behaviour.comparisons(tests[tests["family"].eq("primary") == first], margin) for first in (True, False)
    )
    return [*primary, *said, *notes, *folder.notes(layout, found["trajectories"]), *secondary]


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table as JSON objects, with null for what is missing."""
    return json.loads(table.to_json(orient="records", double_precision=6))  # type: ignore[no-any-return]


def _model(config: Config, layout: Layout, metadata: dict[str, Any]) -> dict[str, Any]:
    """The model as the folder tells it; where it holds no config, it tells nothing."""
    if "model" in metadata:
        return dict(metadata["model"])
    if layout.resolved_yaml.exists():
        return {"id": config.model.source, "dtype": config.model.dtype, "revision": None}
    return dict.fromkeys(("id", "dtype", "revision"))


def _share(values: pd.Series) -> float | None:
    known = values.dropna()
    return round(float(known.astype(float).mean()), 6) if len(known) else None


def summary_text(path: Path) -> str:
    """A finished experiment in a few lines, from its `report.json`."""
    found = json.loads(path.read_text(encoding="utf-8"))
    width = max(len(row["variant"]) for row in found["accuracy"])
    lines = [
        "",
        f"{found['experiment']}: {found['trajectories']} trajectories of {found['model']['id'] or 'an unknown model'} "
        f"on {found['samples']} samples",
        f"  {'variant':{width}}  correct  accuracy  95 % interval  lenient",
    ]
    for row in found["accuracy"]:
        interval = "" if row["low"] is None else f"{row['low']:.3f}–{row['high']:.3f}"
        correct = f"{row['correct']}/{row['n']}"
        accuracy, lenient = ("" if row[key] is None else f"{row[key]:.3f}" for key in ("accuracy", "lenient"))
        lines.append(f"  {row['variant']:{width}}  {correct:>7}  {accuracy:>8}  {interval:>13}  {lenient:>7}")
    lines.append("")
    primary = {
        f"accuracy:{row['variant']}-{row['reference']}" for row in found["paired_tests"] if row["family"] == "primary"
    }
    hidden = [
        statement
        for statement in found["statements"]
        if statement["verdict"] == "undecided"
        and statement["about"].startswith("accuracy:")
        and statement["about"] not in primary
    ]
    lines += wrapped([statement for statement in found["statements"] if statement not in hidden])
    if hidden:
        lines.append(
            f"  undecided: {len(hidden)} secondary comparison{'' if len(hidden) == 1 else 's'}, told in the report."
        )
    lines += ["", f"  to read: {path.with_name('report.html')}   tables: {path.parent / 'tables'}/"]
    return "\n".join(lines)


def wrapped(statements: list[dict[str, Any]]) -> list[str]:
    """Statements of a `report.json` as lines for a terminal, each after its verdict."""
    return [
        line
        for statement in statements
        for line in textwrap.wrap(
            f"{statement['verdict']}: {statement['text']}", WIDTH, initial_indent="  ", subsequent_indent="    "
        )
    ]
