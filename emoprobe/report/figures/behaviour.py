"""What the variants did: accuracy, differences to control, lengths, agreement."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from emoprobe.config.names import CONTROL
from emoprobe.report.figures.style import (
    DIVERGING,
    FAINT,
    INK,
    ROW,
    SEQUENTIAL,
    colour_of,
    empty_figure,
    new_figure,
    valence_legend,
)
from emoprobe.report.figures.view import View


def accuracy(view: View) -> Figure:
    """Accuracy of each variant with its Wilson interval; control's is drawn through."""
    table = view.table("accuracy")
    figure, axes = new_figure(0.9 + ROW * len(table))
    axis = axes[0, 0]
    rows = np.arange(len(table))[::-1]
    for row, entry in zip(rows, table.itertuples(), strict=True):
        colour = colour_of(entry.variant, entry.valence)
        axis.plot([entry.low, entry.high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        # An accuracy of 0 or 1 stands on the edge: its mark is not cut there.
        axis.plot(entry.accuracy, row, "o", color=colour, markersize=6, clip_on=False, zorder=3)
        axis.annotate(
            f"{entry.correct}/{entry.n}", (1.0, row), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8, color=INK,
        )  # fmt: skip
    control = table.loc[table["variant"] == CONTROL, "accuracy"]
    if len(control):
        axis.axvline(float(control.iloc[0]), color=FAINT, linewidth=1, zorder=0)
    axis.set_yticks(rows, table["variant"])
    axis.set_xlim(0, min(1.0, max(0.05, float(table["high"].max()) * 1.05)))
    axis.set_ylim(-0.6, len(table) - 0.4)
    axis.set_xlabel("accuracy, 95 % Wilson interval")
    valence_legend(axis, table["valence"].tolist())
    return figure


def paired_differences(view: View) -> Figure:
    """Forest plot: each variant's accuracy minus control's on the same samples."""
    tests, valences = view.table("paired_tests"), view.valences
    if tests.empty:
        return empty_figure("There is no variant besides control.")
    figure, axes = new_figure(0.9 + ROW * len(tests))
    axis = axes[0, 0]
    rows = np.arange(len(tests))[::-1]
    for row, entry in zip(rows, tests.itertuples(), strict=True):
        colour = colour_of(entry.variant, valences.get(str(entry.variant)))
        axis.plot([entry.low, entry.high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        axis.plot(entry.difference, row, "s", color=colour, markersize=6)
        label = f"+{entry.gained} −{entry.lost}   p = {entry.p_holm:.2g}"
        axis.annotate(
            label, (1.0, row), xycoords=("axes fraction", "data"), xytext=(4, 0), textcoords="offset points",
            va="center", fontsize=8, color=INK,
        )  # fmt: skip
    axis.axvline(0.0, color=INK, linewidth=0.8)
    reach = max(0.05, float(np.nanmax(np.abs(tests[["low", "high"]].to_numpy()), initial=0.0)) * 1.1)
    axis.set_xlim(-reach, reach)
    axis.set_ylim(-0.6, len(tests) - 0.4)
    axis.set_yticks(rows, tests["variant"])
    axis.set_xlabel(
        "accuracy minus control, 95 % bootstrap interval\n(right: flips to right, to wrong; McNemar, Holm-corrected)"
    )
    valence_legend(axis, list(valences.values()))
    return figure


def lengths(view: View) -> Figure:
    """Completion tokens of each variant: every trajectory, and the quartiles."""
    known = view.table("trajectories").dropna(subset=["completion_tokens"])
    if known.empty:
        return empty_figure("The trajectories do not tell their tokens.")
    names = list(known["variant"].unique())
    figure, axes = new_figure(0.9 + ROW * len(names))
    axis = axes[0, 0]
    generator = np.random.default_rng(0)
    for row, name in zip(np.arange(len(names))[::-1], names, strict=True):
        own = known[known["variant"] == name]
        colour = colour_of(name, own["valence"].iloc[0])
        tokens = own["completion_tokens"].astype(float).to_numpy()
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
    axis.set_yticks(np.arange(len(names))[::-1], names)
    axis.set_ylim(-0.6, len(names) - 0.4)
    axis.set_xlim(left=0)
    axis.set_xlabel("completion tokens (bar: quartiles, ring: median)")
    valence_legend(axis, known["valence"].tolist())
    return figure


def consistency(view: View) -> Figure:
    """Who solves what together: agreement and κ of every pair of variants."""
    table = view.table("consistency")
    names = list(table["variant"].unique())
    side = max(2.6, 0.42 * len(names) + 1.2)
    figure, axes = new_figure(side, columns=2, width=max(6.5, 2 * side))
    for axis, measure, title, limits, colours in (
        (axes[0, 0], "agreement", "share of samples judged alike", (0, 1), SEQUENTIAL),
        (axes[0, 1], "kappa", "Cohen's κ", (-1, 1), DIVERGING),
    ):
        matrix = (
            table.pivot(index="variant", columns="other", values=measure).loc[names, names].astype(float).to_numpy()
        )
        image = axis.imshow(matrix, vmin=limits[0], vmax=limits[1], cmap=colours)
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(names)), names if axis is axes[0, 0] else [])
        axis.set_title(title)
        for row in range(len(names)):
            for column in range(len(names)):
                value = matrix[row, column]
                text = "–" if np.isnan(value) else f"{value:.2f}"
                dark = not np.isnan(value) and (abs(value) > 0.6 if limits[0] < 0 else value < 0.5)
                axis.text(column, row, text, ha="center", va="center", fontsize=7, color="white" if dark else INK)
        figure.colorbar(image, ax=axis, shrink=0.7)
    return figure
