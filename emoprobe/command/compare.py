"""Two experiments side by side, as text."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from emoprobe.analysis.outcomes import unit_of
from emoprobe.config.experiment import Config
from emoprobe.config.section import dotted
from emoprobe.finished import CONTRAST, Results
from emoprobe.report.statements import amount
from emoprobe.results.layout import Layout
from emoprobe.results.metadata import RunMetadata

UNITS = "Differences with 95 % intervals, of shares in percentage points."


class MeasureError(ValueError):
    """Raised when no contrast has the measure that was asked for."""


def comparison_text(left: Path, right: Path, measure: str = "correct") -> str:
    """Return the settings that differ between two experiments, and their contrasts side by side.

    Args:
        left: folder of one experiment.
        right: folder of the other.
        measure: measure of the contrasts to show; `all`: every measure.

    Raises:
        FileNotFoundError: a folder or its table `paired_tests` is missing.
        MeasureError: no contrast has the measure.
        DamagedError: a file is damaged.
        ConfigError: an `experiment.yaml` cannot be read.
    """
    one, other = Results(left), Results(right)
    both = one.compare(other)
    tables = [experiment.tables["paired_tests"] for experiment in (one, other)]
    measures = sorted({name for table in tables for name in table["measure"]})
    if measure != "all":
        if measure not in measures:
            raise MeasureError(f"no contrast has the measure {measure!r} (measures there: {', '.join(measures)})")
        both = both[both["measure"] == measure]
        tables = [table[table["measure"] == measure] for table in tables]
    lines = [f"left:  {_described(left)}", f"right: {_described(right)}", *_settings(one, other), "", UNITS]
    lines += _side_by_side(both, measure == "all")
    for side, table in zip(("left", "right"), tables, strict=True):
        names = [_name(row, measure == "all") for row in table.to_dict("records") if _key(row) not in _keys(both)]
        lines += [f"only {side}: {', '.join(names)}"] if names else []
    return "\n".join(lines)


def _described(folder: Path) -> str:
    model = RunMetadata.of(Layout(folder)).model.id
    return f"{folder} ({model or 'unknown model'})"


def _settings(one: Results, other: Results) -> list[str]:
    """Return a line for each setting that differs, where both folders have a config."""
    if not all(Layout(experiment.folder).resolved_yaml.exists() for experiment in (one, other)):
        return ["settings: not compared, as a folder has no experiment.yaml"]
    left, right = (dotted(experiment.config.resolved()) for experiment in (one, other))
    # Of a variant that one side lacks, each of its settings differs: its name says all.
    lone = {*one.config.variants} ^ {*other.config.variants}
    differing = [
        f"  {key}: {_shown(left.get(key, 'absent'))} | {_shown(right.get(key, 'absent'))}"
        for key in dict.fromkeys([*left, *right])
        if left.get(key, ...) != right.get(key, ...) and _counts(key) and not _is_of(key, lone)
    ]
    for side, variants in (("left", one.config.variants), ("right", other.config.variants)):
        only = [name for name in variants if name in lone]
        differing += [f"  variants that only {side} has: {', '.join(only)}"] if only else []
    return ["settings that differ, left | right:" if differing else "settings: equal", *differing]


def _counts(key: str) -> bool:
    """Return whether a key can change a result."""
    field = Config.model_fields[key.partition(".")[0]]
    return key != "experiment.name" and getattr(field.annotation, "changes_results", True)


def _is_of(key: str, variants: Collection[str]) -> bool:
    """Return whether a key belongs to one of some variants."""
    section, _, rest = key.partition(".")
    return section == "variants" and rest.partition(".")[0] in variants


def _shown(value: Any) -> str:
    """Return a value on one line, shortened; of a long list its length."""
    text = "null" if value is None else " ".join(str(value).split())
    if len(text) <= 60:
        return text
    return f"{len(value)} {'entry' if len(value) == 1 else 'entries'}" if isinstance(value, list) else f"{text[:57]}…"


def _side_by_side(both: pd.DataFrame, named: bool) -> list[str]:
    rows = [("contrast", "left", "right", "")]
    for row in both.to_dict("records"):
        differ = "verdicts differ" if row["verdict_left"] != row["verdict_right"] else ""
        rows.append((_name(row, named), _side(row, "left"), _side(row, "right"), differ))
    if len(rows) == 1:
        return ["The experiments share no contrast."]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _name(row: Mapping[Any, Any], named: bool) -> str:
    return f"{row['variant']} − {row['reference']}" + (f" ({row['measure']})" if named else "")


def _key(row: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(row[column] for column in CONTRAST)


def _keys(table: pd.DataFrame) -> set[tuple[Any, ...]]:
    return {_key(row) for row in table.to_dict("records")}


def _side(row: Mapping[Any, Any], side: str) -> str:
    """Return difference and interval, the verdict and n of one side."""
    unit = unit_of({"measure": row["measure"], "value": row[f"value_{side}"]})
    difference, low, high = (row[f"{name}_{side}"] for name in ("difference", "low", "high"))
    verdict = row[f"verdict_{side}"]
    interval = "" if pd.isna(low) else f" [{amount(low, unit)}, {amount(high, unit)}]"
    number = "–" if pd.isna(difference) else f"{amount(difference, unit)}{interval}"
    return f"{number} {'not tested' if pd.isna(verdict) else verdict} (n = {row[f'n_{side}']})"
