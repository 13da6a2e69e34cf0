"""The headline numbers of a study, and its sentences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from emoprobe.analysis.outcomes import PRIMARY_MEASURE
from emoprobe.report.summary import records
from emoprobe.results.layout import Layout
from emoprobe.results.statement import Statement, Verdict
from emoprobe.results.tables import read_table


def study_report(layout: Layout) -> dict[str, Any]:
    """The content of a study's `report.json`, from its tables.

    Args:
        layout: the study's folder.
    """
    accuracy, tests = (read_table(layout.root, name) for name in ("study_accuracy", "study_paired_tests"))
    return {
        "study": layout.root.name,
        "trajectories": int(accuracy["n"].sum()),
        "experiments": _experiments(accuracy),
        "statements": [statement.values() for statement in study_statements(tests)],
    }


def study_statements(tests: pd.DataFrame) -> list[Statement]:
    """One sentence for every planned or primary comparison that is decided, and one for all others."""
    primary = tests[(tests["family"] != "secondary") & (tests["measure"] == PRIMARY_MEASURE)]
    decided = ~primary["verdict_study"].isin([Verdict.UNDECIDED, Verdict.NOTE])
    statements = [_statement(row) for row in records(primary[decided])]
    undecided = primary[~decided]
    if len(undecided):
        text = (
            f"{len(undecided)} of the {len(primary)} planned and primary comparisons are undecided after correction "
            f"over the {primary['experiment'].nunique()} experiments."
        )
        statements.append(Statement(about="data:study", verdict=Verdict.NOTE, text=text, n=len(undecided)))
    return statements


def _statement(row: dict[str, Any]) -> Statement:
    """A verdict in one experiment, with the correction over the study."""
    low, high, difference = (100 * float(row[key]) for key in ("low", "high", "difference"))
    verdict = Verdict(row["verdict_study"])
    different = verdict in (Verdict.DIFFERENT, Verdict.DIFFERENT_HERE)
    words = "differs from" if different else "is equivalent to"
    with_these = ", with the texts used," if verdict in (Verdict.DIFFERENT_HERE, Verdict.EQUIVALENT_HERE) else ""
    p = float(row["p_study"] if different else row["p_equivalent_study"])
    text = (
        f"{row['experiment']}: {row['variant']} {words} {row['reference']}{with_these} in strict accuracy "
        f"({difference:+.1f} percentage points [{low:+.1f}, {high:+.1f}], p = {p:.2g} corrected over the study)."
    )
    return Statement(
        about=f"accuracy:{row['experiment']}/{row['variant']}-{row['reference']}",
        verdict=verdict,
        text=text,
        estimate=float(row["difference"]),
        low=float(row["low"]),
        high=float(row["high"]),
        p=p,
        n=int(row["n"]),
    )


def _experiments(accuracy: pd.DataFrame) -> list[dict[str, Any]]:
    """A row of the page's list for each experiment: accuracy is the mean over its trajectories."""
    rows = []
    for name, variants in accuracy.groupby("experiment", sort=False):
        n, correct = int(variants["n"].sum()), int(variants["correct"].sum())
        rows.append(
            {
                "name": str(name),
                "model": Path(str(variants["model"].iloc[0])).name,
                "dataset": str(variants["dataset"].iloc[0]),
                "trajectories": n,
                "accuracy": f"{correct / n:.3f}" if n else "–",
            }
        )
    return rows
