"""The few lines that a run ends with, out of a `report.json`; it imports nothing that takes time."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from emoprobe.analysis.outcomes import subject
from emoprobe.results.record import DamagedError, read_json

WIDTH = 110


def summary_text(path: Path) -> str:
    """A finished experiment in a few lines, from its `report.json`; a line that names it where that is damaged."""
    try:
        report = read_json(path)
    except DamagedError as error:
        return f"\n{error}"
    width = max(len(name) for name in ("variant", *(row["variant"] for row in report["accuracy"])))
    lines = [
        "",
        f"{report['experiment']}: {report['trajectories']} trajectories of "
        f"{report['model']['id'] or 'an unknown model'} on {report['samples']} samples",
        f"  based on {' and '.join(_based_on(report))}",
    ]
    graded = any(row["n"] for row in report["accuracy"]) or not report.get("outcomes")
    lines += [f"  {'variant':{width}}  correct  accuracy  95 % interval  lenient"] if graded else _means(report, width)
    for row in report["accuracy"] if graded else ():
        interval = "" if row["low"] is None else f"{row['low']:.3f}–{row['high']:.3f}"
        correct = f"{row['correct']}/{row['n']}"
        accuracy, lenient = ("" if row[key] is None else f"{row[key]:.3f}" for key in ("accuracy", "lenient"))
        lines.append(f"  {row['variant']:{width}}  {correct:>7}  {accuracy:>8}  {interval:>13}  {lenient:>7}")
    lines.append("")
    secondary = {
        subject(row["measure"], row["variant"], row["reference"])
        for row in report["paired_tests"]
        if row["family"].endswith("secondary") and row["measure"] not in ("lenient", "untruncated")
    }
    hidden = [
        statement
        for statement in report["statements"]
        if statement["verdict"] == "undecided" and statement["about"] in secondary
    ]
    lines += wrapped([statement for statement in report["statements"] if statement not in hidden])
    if hidden:
        lines.append(
            f"  undecided: {len(hidden)} secondary comparison{'' if len(hidden) == 1 else 's'}, in the report."
        )
    lines += ["", f"  to read: {path.with_name('report.html')}   tables: {path.parent / 'tables'}/"]
    return "\n".join(lines)


def _means(report: dict[str, Any], width: int) -> list[str]:
    """A line for each variant's mean of the primary outcome, of a category one for each."""
    lines = [f"  {'variant':{width}}       n      mean      95 % interval  outcome"]
    for row in report["outcomes"]:
        if row["outcome"] == report["outcomes"][0]["outcome"]:
            mean = "" if row["mean"] is None else f"{row['mean']:.3f}"
            interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
            name = " = ".join(filter(None, (row["outcome"], row["category"])))
            lines.append(f"  {row['variant']:{width}}  {row['n']:>6}  {mean:>8}  {interval:>17}  {name}")
    return lines


def _based_on(report: dict[str, Any]) -> list[str]:
    """The tables that a `report.json` was made from, by what they are about."""
    parts = {"probes": "probes", "steering": "steering", "autoencoders": "features"}
    about = ["behaviour", *(name for key, name in parts.items() if report.get(key))]
    plan = report.get("plan_sha256")
    return [f"the tables of {', '.join(about)}", *([f"the plan {plan[:12]}"] if plan else [])]


def study_text(path: Path) -> str:
    """A finished study in a few lines, from its `report.json`: its experiments, and what it says of them."""
    try:
        report = read_json(path)
    except DamagedError as error:
        return f"\n{error}"
    width = max(len(entry["name"]) for entry in report["experiments"])
    lines = ["", f"{report['study']}: {len(report['experiments'])} experiments, {report['trajectories']} trajectories"]
    lines += [
        f"  {entry['name']:{width}}  {entry['trajectories']:>6} trajectories  accuracy {entry['accuracy']}"
        for entry in report["experiments"]
    ]
    lines += ["", *wrapped(report["statements"])]
    return "\n".join([*lines, "", f"  to read: {path.with_name('report.html')}"])


def wrapped(statements: list[dict[str, Any]]) -> list[str]:
    """Statements of a `report.json` as lines for a terminal, each after its verdict."""
    return [
        line
        for statement in statements
        for line in textwrap.wrap(
            f"{statement['verdict']}: {statement['text']}", WIDTH, initial_indent="  ", subsequent_indent="    "
        )
    ]
