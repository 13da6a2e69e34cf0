"""The headline numbers of a study, and its sentences."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from emoprobe.analysis.conclusion import plain_rows
from emoprobe.analysis.outcomes import (
    column_and_category,
    judge_of,
    measured_column,
    subject,
    title_of,
    unit_of,
    value_of,
)
from emoprobe.analysis.study import shared_rows
from emoprobe.report.statements import amount
from emoprobe.report.statements.behaviour import bound, p_text
from emoprobe.results.layout import Layout
from emoprobe.results.statement import Statement, Verdict
from emoprobe.results.tables import read_table

STUDY = "data:study"


def study_report(layout: Layout) -> dict[str, Any]:
    """The content of a study's `report.json`, from its tables.

    Args:
        layout: the study's folder.
    """
    accuracy, outcomes, tests = (
        read_table(layout.root, f"study_{name}") for name in ("accuracy", "outcomes", "paired_tests")
    )
    experiments = _experiments(accuracy, outcomes)
    return {
        "study": layout.root.name,
        "trajectories": sum(entry["trajectories"] for entry in experiments),
        "experiments": experiments,
        "statements": [statement.values() for statement in study_statements(tests)],
    }


def study_statements(tests: pd.DataFrame) -> list[Statement]:
    """Return a sentence for every comparison in a shared outcome that is decided, and one for all others."""
    rows = plain_rows(shared_rows(tests))
    if not rows:
        text = "No planned or primary comparison is of an outcome that the experiments share."
        return [Statement(about=STUDY, verdict=Verdict.NOTE, text=text)]
    counts = Counter(Verdict(row["verdict_study"]) for row in rows)
    left = {
        "undecided after correction over the experiments that have them": counts[Verdict.UNDECIDED],
        "not tested": counts[Verdict.NOTE],
    }
    statements = [_statement(row) for row in rows if row["verdict_study"] not in (Verdict.UNDECIDED, Verdict.NOTE)]
    if any(left.values()):
        titles = dict.fromkeys(title_of(measured_column(row["measure"]), value_of(row), judge_of(row)) for row in rows)
        said = [f"{count} {'is' if count == 1 else 'are'} {words}" for words, count in left.items() if count]
        text = f"Of {len(rows)} planned and primary comparisons in {', '.join(titles)}, {' and '.join(said)}."
        statements.append(Statement(about=STUDY, verdict=Verdict.NOTE, text=text, n=sum(left.values())))
    return statements


def about_row(row: dict[str, Any]) -> str:
    """Return what the sentence on a row of `study_paired_tests` is about; each category has a sentence."""
    of, _, contrast = subject(row["measure"], row["variant"], row["reference"]).partition(":")
    _, category = column_and_category(row["measure"])
    return f"{of if category is None else row['measure']}:{row['experiment']}/{contrast}"


def _statement(row: dict[str, Any]) -> Statement:
    """A verdict in one experiment, with the correction over the study."""
    verdict, unit = Verdict(row["verdict_study"]), unit_of(row)
    different = verdict in (Verdict.DIFFERENT, Verdict.DIFFERENT_HERE)
    words = "differs from" if different else "is equivalent to"
    # Tables of earlier versions do not have the margin.
    within = "" if different or row["margin"] is None else f" within {bound(row, row['margin'])} either way"
    with_these = ", with the texts used," if verdict in (Verdict.DIFFERENT_HERE, Verdict.EQUIVALENT_HERE) else ""
    p = row["p_study"] if different else row["p_equivalent_study"]
    difference, low, high = (amount(row[key], unit) for key in ("difference", "low", "high"))
    text = (
        f"{row['experiment']}: {row['variant']} {words} {row['reference']}{with_these} in "
        f"{title_of(row['measure'], value_of(row), judge_of(row))}{within} ({difference}{' ' * bool(unit)}{unit} "
        f"[{low}, {high}], p {p_text(p)} corrected over the study)."
    )
    return Statement(
        about=about_row(row),
        verdict=verdict,
        text=text,
        estimate=row["difference"],
        low=row["low"],
        high=row["high"],
        p=p,
        n=int(row["n"]),
    )


def _experiments(accuracy: pd.DataFrame, outcomes: pd.DataFrame) -> list[dict[str, Any]]:
    """A row of the page's list for each experiment: accuracy is the mean over the trajectories that are graded."""
    rows = []
    for name, variants in accuracy.groupby("experiment", sort=False):
        n, correct = int(variants["n"].sum()), int(variants["correct"].sum())
        means = outcomes[outcomes["experiment"] == name]
        first = means[means["measure"] == means["measure"].iloc[0]]  # all outcomes are of the same trajectories
        rows.append(
            {
                "name": str(name),
                "model": Path(str(variants["model"].iloc[0])).name,
                "dataset": str(variants["dataset"].iloc[0]),
                "trajectories": int((first["n"] + first["missing"]).sum()),
                "accuracy": f"{correct / n:.3f}" if n else "–",
            }
        )
    return rows
