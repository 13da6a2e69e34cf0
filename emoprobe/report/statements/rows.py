"""Rows of a table as plain values, for sentences."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows with None for what is missing."""
    values = table.astype(object).where(table.notna(), None)
    return [{str(name): value for name, value in row.items()} for row in values.to_dict("records")]


def finite(value: Any) -> float | None:
    """A number; None where there is none."""
    return None if value is None or not math.isfinite(value) else float(value)
