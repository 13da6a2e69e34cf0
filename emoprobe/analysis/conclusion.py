"""Verdicts with the reason for each: decided by the analysis, phrased by the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pandas as pd

from emoprobe.results.statement import Verdict


class Reason(Enum):
    """Reason for a verdict; each reason belongs to one verdict.

    The values of a member are its verdict and what it means.
    """

    def __init__(self, verdict: Verdict, meaning: str) -> None:
        self.verdict = verdict
        self.meaning = meaning


@dataclass(frozen=True)
class Conclusion:
    """The outcome of a test, with the numbers that the verdict follows from; None where there are none.

    `low` and `high` end the 95 % interval of `estimate`; `p` is the p-value of the verdict, `n` counts trajectories of
    probes and questions elsewhere.
    """

    reason: Reason
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    n: int | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict that the reason belongs to."""
        return self.reason.verdict

    @property
    def numbers(self) -> dict[str, float | None]:
        """The numbers of the statement, by its fields."""
        return {name: getattr(self, name) for name in ("estimate", "low", "high", "p", "n")}


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table, with None for missing values."""
    values = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in values.to_dict("records")]


def finite(row: Mapping[str, Any], name: str) -> float | None:
    """Return a number of a row; None where it is missing or not finite."""
    value = row.get(name)
    return None if value is None or not math.isfinite(value) else float(value)
