"""The pages to read: an experiment's and a study's, each with every figure and table inside it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from emoprobe.analysis.conclusion import plain_rows
from emoprobe.analysis.outcomes import subject
from emoprobe.analysis.study import valences_of
from emoprobe.config.experiment import Config
from emoprobe.report import front, links
from emoprobe.report.done import done
from emoprobe.report.figures import EMPTY, figures_of_tables, tables_there
from emoprobe.report.study import about_row
from emoprobe.report.verdicts import MEANINGS
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout, draw_id
from emoprobe.results.metadata import RunMetadata
from emoprobe.results.statement import Verdict
from emoprobe.results.tables import read_table

Address = Callable[[dict[str, Any]], str | None]
TEMPLATES = Path(__file__).with_name("templates")
MAX_ROWS = 300
FIRST = ("accuracy", "outcomes")  # figures of the first screen: it shows the first one that has something to see
BROAD = 600.0  # points; a broader figure needs the width of the page to be readable
# What a sentence is about → the heading that it stands under.
GROUPS = {
    "accuracy": "Accuracy",
    "probe": "Inside the model",
    "steering": "Inside the model",
    "mediation": "Inside the model",
    "feature": "Inside the model",
    "data": "Design and limits",
}
OTHER, FOLDED = "Other outcomes", "Undecided and secondary comparisons"


def experiment_page(config: Config, layout: Layout, report: dict[str, Any], rules: Collection[str]) -> str:
    """The page of an experiment, from the tables and figures that it has.

    Args:
        config: the config of the analysis.
        layout: where they lie.
        report: the content of `report.json`.
        rules: the rules whose tables are part of it.
    """
    metadata, valences = RunMetadata.of(layout), {row["variant"]: row["valence"] for row in report["accuracy"]}
    features = feature_contexts(layout) if "analyze_features" in rules else []
    figures = _figures(layout, rules)
    comparisons = front.comparisons(config, report)
    drawn = {figure["name"]: figure for entries in figures.values() for figure in entries}
    first = next((drawn[name] for name in FIRST if name in drawn), None)
    return _render(
        "experiment",
        layout,
        rules,
        {heading: [figure for figure in entries if figure is not first] for heading, entries in figures.items()},
        [
            ("answer", "Answer"),
            ("done", "What was done"),
            *([("comparisons", "Comparisons")] if comparisons else []),
            ("sentences", "Sentences"),
        ],
        title=report["experiment"],
        metadata=metadata,
        features=features,
        first=first,
        question=front.question(config, report),
        done=[(*entry, _file(layout, entry[0])) for entry in done(config, report, metadata)],
        answer=front.answer(report, front.margin_of(config, report)),
        comparisons=comparisons,
        address=lambda row: links.of_row(row, valences),
        groups=_grouped(report),
        folded=FOLDED,
    )


def study_page(layout: Layout, report: dict[str, Any]) -> str:
    """The page of a study, which links to each experiment's.

    Args:
        layout: where its tables and figures lie.
        report: the content of its `report.json`.
    """
    rules, sections = ["tabulate_study"], [("sentences", "Sentences"), ("experiments", "Experiments")]
    valences = valences_of(read_table(layout.root, "study_accuracy"))

    def address(row: dict[str, Any]) -> str | None:
        there = links.of_row(row, valences[row["experiment"]])
        return None if there is None else f"../{row['experiment']}/{there}"

    tests = plain_rows(read_table(layout.root, "study_paired_tests"))
    addresses = {about_row(row): address(row) for row in tests}
    report = report | {
        "statements": [{**entry, "address": addresses.get(entry["about"])} for entry in report["statements"]]
    }
    figures = _figures(layout, rules)
    return _render("study", layout, rules, figures, sections, address, title=report["study"], **report)


def _grouped(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Heading → the sentences below it, in the order of the report; the last heading is folded: it decides nothing."""
    folded, primary = (
        {
            subject(row["measure"], row["variant"], row["reference"])
            for row in report["paired_tests"]
            if row["family"].endswith(kind)
        }
        for kind in ("secondary", "primary")
    )
    folded |= {
        entry["about"]
        for entry in report["statements"]
        if entry["about"] in primary and entry["verdict"] == Verdict.UNDECIDED
    }
    addresses = _addresses(report)
    headings = (GROUPS["accuracy"], OTHER, *GROUPS.values(), FOLDED)
    groups: dict[str, list[dict[str, Any]]] = {name: [] for name in headings}
    for entry in report["statements"]:
        name = FOLDED if entry["about"] in folded else GROUPS.get(entry["about"].partition(":")[0], OTHER)
        groups[name].append({**entry, "address": addresses.get(entry["about"])})
    return {name: entries for name, entries in groups.items() if entries}


def _addresses(report: dict[str, Any]) -> dict[str, str]:
    """What a sentence is about → the address of its conversations in the explorer."""
    valences = {row["variant"]: row["valence"] for row in report["accuracy"]}
    found = {
        subject(row["measure"], row["variant"], row["reference"]): links.contrast(
            row["variant"], row["reference"], valences
        )
        for row in report["paired_tests"]
    }
    for row in report["probes"]:
        if row["layer"] is not None:
            found[f"probe:{row['target']}"] = links.captured(layer=row["layer"], hook=row["hook_point"])
    for row in report["steering"]:
        if (address := links.of_row(row, valences)) is not None:
            found[f"steering:{row['direction']}"] = address
    return found


def _render(
    template: str,
    layout: Layout,
    rules: Collection[str],
    figures: dict[str, list[dict[str, Any]]],
    sections: list[tuple[str, str]],
    address: Address,
    **values: Any,
) -> str:
    """Render a page.

    Args:
        template: its name.
        layout: the folder with the tables.
        rules: the rules whose tables are part of it.
        figures: heading → figures.
        sections: anchors and headings that come before figures and tables.
        address: returns the address of the conversations behind a row of a table; None where there is none.
        values: of the template.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    names = [name for name in tables_there(layout, rules) if name != "trajectories"]
    figures = {heading: entries for heading, entries in figures.items() if entries}
    return environment.get_template(f"{template}.html.j2").render(
        **values,
        sections=[*sections, *((f"part-{heading.lower()}", heading) for heading in figures), ("tables", "Tables")],
        meanings=MEANINGS,
        parts=figures,
        tables=[table for name in names if (table := _table(layout, name, address))["total"]],
    )


def _figures(layout: Layout, rules: Collection[str]) -> dict[str, list[dict[str, Any]]]:
    """Heading → the figures that stand under it."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for figure in figures_of_tables(rules):
        name, path = figure.name, layout.figure(figure.name)
        # The sentences say why there is nothing to see.
        if path.exists() and EMPTY not in (text := path.read_text(encoding="utf-8")):
            width = re.search(r'<svg[^>]* width="([\d.]+)pt"', text)
            entry = {
                "name": name,
                "svg": _inline(text, name),
                "caption": figure.caption.replace("``", ""),
                "broad": width is not None and float(width[1]) > BROAD,
            }
            parts.setdefault(figure.part, []).append(entry)
    return parts


def _file(layout: Layout, heading: str) -> str | None:
    """Return the file, relative to the page, that a line of `done` is from; None without one."""
    files = {"Model": layout.model, "Made": layout.metadata, "Plan": layout.plan}
    path = files.get(heading)
    return str(path.relative_to(layout.root)) if path is not None and path.exists() else None


def _inline(text: str, name: str) -> str:
    """An SVG to stand inside a page: no prologue, ids that no other figure has, a name for screen readers."""
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    # The page lies one folder above.
    text = text.replace('<a xlink:href="../', '<a href="')
    # What is inside an image is hidden from screen readers, links too.
    role = "group" if "<a " in text else "img"
    return text.replace("<svg", f'<svg role="{role}" aria-label="{name.replace("_", " ")}"', 1)


def _table(layout: Layout, name: str, address: Address) -> dict[str, Any]:
    table = read_table(layout.root, name)
    rows = plain_rows(table.head(MAX_ROWS))
    return {
        "name": name,
        "file": str(layout.table(name).relative_to(layout.root)),
        "total": len(table),
        "columns": list(table.columns),
        "meanings": {name: column.meaning for name, column in TABLES[name].columns.items()},
        "rows": [[_cell(value) for value in row.values()] for row in rows],
        "addresses": [address(row) for row in rows],
    }


def _cell(value: Any) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and value != value):
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


MOST = 12  # features that are shown


def feature_contexts(layout: Layout) -> list[dict[str, Any]]:
    """A few features with what they differ in and their contexts, those that differ first; empty without a table."""
    if not (layout.table("feature_contexts").exists() and layout.table("features").exists()):
        return []
    contexts = read_table(layout.root, "feature_contexts")
    features = read_table(layout.root, "features")
    tested = features[features["method"] == "autoencoder"]
    tested = tested.assign(found=tested["differs"].fillna(False).astype(bool), strength=tested["fitted"].abs())
    tested = tested.sort_values(["found", "strength"], ascending=False, kind="stable")
    shown_features: list[dict[str, Any]] = []
    for feature in dict.fromkeys(tested["feature"]):
        shown = contexts[contexts["feature"] == feature]
        if len(shown) and len(shown_features) < MOST:
            rows = tested[tested["feature"] == feature]
            shown_features.append(
                {
                    "feature": int(feature),
                    "differs": [_difference(row) for row in rows.to_dict("records")],
                    "contexts": [_context(row) for row in shown.to_dict("records")],
                }
            )
    return shown_features


def _difference(row: dict[Any, Any]) -> str:
    effect = "not active" if pd.isna(row["standardized"]) else f"{row['standardized']:+.2f} sd"
    return f"{row['variant']}, {row['part']}: {effect}, {'differs' if row['found'] else 'not shown to differ'}"


def _context(row: dict[Any, Any]) -> dict[str, Any]:
    activations = json.loads(row["activations"])
    largest = max(activations) or 1.0
    return {
        "where": f"{row['variant']}/{draw_id(row['sample_id'], row['draw'])}, {row['part']}",
        "address": links.conversation(row["variant"], row["sample_id"], row["draw"], token=f"feature-{row['feature']}"),
        "activation": row["activation"],
        "tokens": [
            {"text": text, "share": round(max(0.0, value / largest), 2), "top": number == row["place"]}
            for number, (text, value) in enumerate(zip(json.loads(row["tokens"]), activations, strict=True))
        ],
    }
