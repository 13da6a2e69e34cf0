"""The report to read: one page with every figure and table inside it, which needs nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from emoprobe.report.figures import FIGURES
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout
from emoprobe.results.tables import read_table

TEMPLATE = Path(__file__).with_suffix(".html.j2")
MAX_ROWS = 300


def report_page(layout: Layout, report: dict[str, Any]) -> str:
    """The page, from the tables and figures that the experiment has."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    parts: dict[str, list[dict[str, str]]] = {}
    for name, figure in FIGURES.items():
        if layout.figure(name).exists():
            caption = figure.caption.replace("``", "")
            parts.setdefault(figure.part, []).append(
                {"name": name, "svg": _inline(layout.figure(name), name), "caption": caption}
            )
    names = [name for name in TABLES if name != "trajectories" and layout.table(name).exists()]
    return environment.get_template(TEMPLATE.name).render(
        report=report,
        metadata=json.loads(layout.metadata.read_text(encoding="utf-8")),
        parts=parts,
        tables=[_table(layout, name) for name in names],
    )


def _inline(path: Path, name: str) -> str:
    """An SVG to stand inside a page: no prologue, ids that no other figure has, a name for screen readers."""
    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    return text.replace("<svg", f'<svg role="img" aria-label="{name.replace("_", " ")}"', 1)


def _table(layout: Layout, name: str) -> dict[str, Any]:
    table = read_table(layout.root, name)
    meanings = {name: column.meaning for name, column in TABLES[name].columns.items()}
    return {
        "name": name,
        "total": len(table),
        "columns": list(table.columns),
        "meanings": meanings,
        "rows": [[_cell(value) for value in row] for row in table.head(MAX_ROWS).itertuples(index=False)],
    }


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)
