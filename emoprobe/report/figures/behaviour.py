"""What the variants did: accuracy, differences to control, lengths, agreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from emoprobe.analysis.conclusion import plain_rows
from emoprobe.analysis.outcomes import (
    PRIMARY_MEASURE,
    column_and_category,
    measured_column,
    outcomes_of,
    primary_of,
    primary_rows,
    title_of,
    value_of,
)
from emoprobe.config.section import CONTROL
from emoprobe.report import links
from emoprobe.report.figures.style import (
    DIVERGING,
    FAINT,
    INK,
    ROW,
    SEQUENTIAL,
    WIDTH,
    colour_of,
    empty_figure,
    link,
    link_area,
    link_row,
    new_figure,
    valence_legend,
)
from emoprobe.report.figures.view import ExperimentView

AGREEMENTS = (
    ("agreement", "share of samples judged alike", (0, 1), SEQUENTIAL),
    ("kappa", "Cohen's κ", (-1, 1), DIVERGING),
)
VERDICT_MARKS = {
    "different": "s", "different_here": "s", "equivalent": "o", "equivalent_here": "o", "undecided": "|", "note": "|",
}  # fmt: skip


def accuracy(view: ExperimentView) -> Figure:
    """Strict accuracy of each variant with its interval, and the lenient one as a ring; control's is drawn through."""
    table = view.table("accuracy")
    if table["accuracy"].isna().all():
        return empty_figure("No trajectory has a grade.")
    figure, axes = new_figure(1.2 + ROW * len(table))
    axis = axes[0, 0]
    rows = np.arange(len(table))[::-1]
    for row, entry in zip(rows, table.itertuples(), strict=True):
        colour = colour_of(entry.variant, entry.valence)
        axis.plot([entry.low, entry.high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        # An accuracy of 0 or 1 stands on the edge: its mark is not cut there.
        axis.plot(
            entry.lenient,
            row,
            "o",
            markeredgecolor=colour,
            markerfacecolor="none",
            markersize=9,
            clip_on=False,
            zorder=2,
        )
        axis.plot(entry.accuracy, row, "o", color=colour, markersize=5, clip_on=False, zorder=3)
        _margin_text(axis, row, f"{entry.correct}/{entry.n}")
        link_row(axis, row, links.conversations([str(entry.variant)]), f"conversations of {entry.variant}")
    control = table.loc[table["variant"] == CONTROL, "accuracy"]
    if len(control):
        axis.axvline(float(control.iloc[0]), color=FAINT, linewidth=1, zorder=0)
    axis.set_yticks(rows, table["variant"])
    reach = float(np.nanmax(table[["accuracy", "high", "lenient"]].to_numpy(dtype=float), initial=0.0))
    axis.set_xlim(0, min(1.0, max(0.05, reach * 1.05)))
    axis.set_ylim(-0.6, len(table) - 0.4)
    axis.set_xlabel("accuracy with 95 % interval (dot: strict, ring: lenient; right: strictly correct)")
    valence_legend(axis, table["valence"].tolist())
    return figure


def outcomes(view: ExperimentView) -> Figure:
    """Mean of each outcome but accuracy in each variant with its interval; of a category one for each."""
    table = view.table("outcomes")
    table = table[(table["measure"] != PRIMARY_MEASURE) & table["mean"].notna()]
    panels = list(table.groupby("outcome", sort=False))
    if not panels:
        return empty_figure("There is no outcome besides accuracy.")
    judges = {outcome.label: outcome.judge for outcome in outcomes_of(view.config)}
    heights = [1.2 + ROW * len(rows) for _, rows in panels]
    figure, axes = new_figure(sum(heights), rows=len(panels), gridspec_kw={"height_ratios": heights})
    for axis, (label, panel) in zip(axes[:, 0], panels, strict=True):
        _means(axis, panel, judges.get(str(label)))
    valence_legend(axes[0, 0], table["valence"].tolist())
    return figure


def _means(axis: Any, table: pd.DataFrame, judge: str | None) -> None:
    """Draw the means of one outcome, a row for each variant, or variant and category."""
    rows = np.arange(len(table))[::-1]
    names = []
    for row, entry in zip(rows, table.itertuples(), strict=True):
        colour = colour_of(entry.variant, entry.valence)
        axis.plot([entry.low, entry.high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        axis.plot(entry.mean, row, "o", color=colour, markersize=5, clip_on=False, zorder=3)
        _margin_text(axis, row, f"n = {entry.n}")
        names.append(str(entry.variant) if entry.value != "category" else f"{entry.variant}: {entry.category}")
        link_row(axis, row, links.conversations([str(entry.variant)]), f"conversations of {entry.variant}")
    axis.set_yticks(rows, names)
    axis.set_ylim(-0.6, len(table) - 0.4)
    column = measured_column(str(table["measure"].iloc[0]))
    axis.set_xlabel(f"{title_of(column, value_of(plain_rows(table)[0]), judge)} with 95 % interval")


def paired_differences(view: ExperimentView) -> Figure:
    """Forest plot: each comparison of the primary outcome with interval and verdict, the primary in full colour.

    That is strict accuracy, where it is graded.
    """
    valences = view.valences
    tests = primary_rows(view.table("paired_tests"))
    if tests.empty:
        return empty_figure("There is no variant besides the references.")
    if tests["difference"].isna().all():
        return empty_figure("No trajectory has a grade.")
    categories = [column_and_category(measure)[1] for measure in tests["measure"]]
    labels = [
        f"{entry.variant} − {entry.reference}{f': {category}' if category else ''}"
        for entry, category in zip(tests.itertuples(), categories, strict=True)
    ]
    # Long names get a wider picture, so that the axis keeps its width.
    longest = max(map(len, labels))
    figure, axes = new_figure(1.2 + ROW * len(tests), width=WIDTH + 0.06 * max(0, longest - 16))
    axis = axes[0, 0]
    rows = np.arange(len(tests))[::-1]
    primary = primary_of(view.config)
    margin = primary.margin or 0.0
    axis.axvspan(-margin, margin, color=FAINT, alpha=0.25, linewidth=0, zorder=0)
    for row, entry in zip(rows, tests.itertuples(), strict=True):
        colour = colour_of(entry.variant, valences.get(str(entry.variant)))
        alpha = 0.45 if str(entry.family).endswith("secondary") else 1.0
        mark = VERDICT_MARKS[str(entry.verdict)]
        # The p value that the verdict follows from, as in the statement beside it.
        p_value = float(str(entry.p_equivalent_holm if str(entry.verdict).startswith("equivalent") else entry.p_holm))
        axis.plot([entry.low, entry.high], [row, row], color=colour, linewidth=2, alpha=alpha, solid_capstyle="butt")
        axis.plot(
            entry.difference,
            row,
            mark,
            color=colour,
            alpha=alpha,
            markersize=7,
            markeredgewidth=2,
        )
        p = "" if np.isnan(p_value) else f"   p = {p_value:.2g}"
        words = "not tested" if entry.verdict == "note" else str(entry.verdict).replace("_", " ")
        _margin_text(axis, row, f"{words}{p}")
        sides = str(entry.variant), str(entry.reference)
        link_row(axis, row, links.contrast(*sides, valences), f"conversations behind {' − '.join(sides)}")
    axis.axvline(0.0, color=INK, linewidth=0.8)
    ends = tests[["low", "high", "difference"]].to_numpy(dtype=float)
    least = 0.05 if str(tests["value"].iloc[0]) != "number" else 1e-9
    reach = max(least, 1.2 * margin, float(np.nanmax(np.abs(ends), initial=0.0)) * 1.1)
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-0.6, len(tests) - 0.4)
    axis.set_yticks(rows, labels)
    corrected = bool(tests["corrected"].fillna(False).all())
    first = plain_rows(tests)[0]
    column = measured_column(first["measure"])
    named = title_of(column, value_of(first), None if corrected else primary.judge)
    axis.set_xlabel(f"difference of {named} with 95 % interval (band: equivalent; pale: secondary)")
    valence_legend(axis, list(valences.values()))
    return figure


def _margin_text(axis: Any, row: float, text: str) -> None:
    """A text to the right of a row of the axis."""
    axis.annotate(
        text, (1.0, row), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points", va="center",
        fontsize=8, color=INK,
    )  # fmt: skip


def lengths(view: ExperimentView) -> Figure:
    """Completion tokens of each variant: every trajectory, and the quartiles."""
    known = view.table("trajectories").dropna(subset=["completion_tokens"])
    if known.empty:
        return empty_figure("The trajectories do not tell their tokens.")
    names = list(known["variant"].unique())
    figure, axes = new_figure(0.9 + ROW * len(names))
    axis = axes[0, 0]
    generator = np.random.default_rng(0)
    for row, name in zip(np.arange(len(names))[::-1], names, strict=True):
        answers = known[known["variant"] == name]
        colour = colour_of(name, answers["valence"].iloc[0])
        tokens = answers["completion_tokens"].astype(float).to_numpy()
        spread = generator.uniform(-0.25, 0.25, len(tokens))
        alpha = float(np.clip(30 / len(tokens), 0.08, 0.7))
        axis.plot(
            tokens,
            row + spread,
            "o",
            color=colour,
            markersize=3,
            alpha=alpha,
            markeredgewidth=0,
            rasterized=len(tokens) > 500,
        )
        low, middle, high = np.quantile(tokens, [0.25, 0.5, 0.75])
        axis.plot([low, high], [row, row], color=INK, linewidth=3, solid_capstyle="butt")
        axis.plot(middle, row, "o", color="white", markeredgecolor=INK, markersize=6)
        link_row(axis, row, links.conversations([name], sort="long"), f"conversations of {name}, the longest first")
    axis.set_yticks(np.arange(len(names))[::-1], names)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_xlim(left=0)
    axis.set_xlabel("completion tokens (bar: quartiles, ring: median)")
    valence_legend(axis, known["valence"].tolist())
    return figure


def consistency(view: ExperimentView) -> Figure:
    """Plot the agreement and κ of every pair of variants."""
    table = view.table("consistency")
    names = list(table["variant"].unique())
    known = [panel for panel in AGREEMENTS if table[panel[0]].notna().any()]
    if not known:
        return empty_figure("No two variants have grades of the same question.")
    side = max(2.6, 0.42 * len(names) + 1.2)
    figure, axes = new_figure(side, columns=len(known), width=len(known) * max(3.25, side))
    for axis, (measure, title, limits, colours) in zip(axes[0], known, strict=True):
        matrix = (
            table.pivot(index="variant", columns="other", values=measure).loc[names, names].astype(float).to_numpy()
        )
        image = axis.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap=colours)
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(names)), names if axis is axes[0, 0] else [])
        axis.set_title(title)
        for label, name in zip(axis.get_yticklabels(), names, strict=False):
            link(label, links.conversations([name]), f"conversations of {name}")
        for row in range(len(names)):
            for column in range(len(names)):
                value = matrix[row, column]
                text = "–" if np.isnan(value) else f"{value:.2f}"
                dark = not np.isnan(value) and (abs(value) > 0.6 if limits[0] < 0 else value < 0.5)
                axis.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else INK)
                if row != column:
                    pair = names[row], names[column]
                    address = links.conversations([pair[0]], flip="any", against=pair[1])
                    title = f"questions that {pair[0]} and {pair[1]} answer differently"
                    link_area(axis, column - 0.5, column + 0.5, row - 0.5, row + 0.5, address, title)
        figure.colorbar(image, ax=axis, shrink=0.7)
    return figure
