"""Features that differ with the tone: their effects on the half that they were not chosen on, and what else does it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from emoprobe.report import links
from emoprobe.report.figures.style import FAINT, INK, ROW, colour_of, empty_figure, link_row, new_figure
from emoprobe.report.figures.view import ExperimentView

MOST = 6  # features of a tone that are shown
# Okabe & Ito (2008); each marker is another shape, so that they differ in grey as well.
METHODS = {
    "autoencoder": ("#0072B2", "o", "autoencoder"),
    "random": ("#999999", "s", "random autoencoder"),
    "pca": ("#E69F00", "^", "principal components"),
    "diff_means": ("#000000", "D", "difference of means"),
}


def effects(view: ExperimentView) -> Figure:
    """For each tone the features that were put up first: the difference to the reference in standard deviations."""
    table = view.table("features")
    tested = table[(table["method"] == "autoencoder") & table["p"].notna() & table["standardized"].notna()]
    if tested.empty:
        return empty_figure("No feature could be tested: it takes three texts and eight questions in each half.")
    tested = tested.assign(strength=tested["fitted"].abs(), found=tested["differs"].fillna(False).astype(bool))
    tested = tested.sort_values("strength", ascending=False, kind="stable")
    shown = [
        (name, tested[tested["variant"] == name].head(MOST).sort_values("standardized"))
        for name in dict.fromkeys(table["variant"])
        if tested["variant"].eq(name).any()
    ]
    total = sum(len(rows) + 1 for _, rows in shown)
    figure, axes = new_figure(ROW * total + 1.1)
    axis, place, labels, ticks = axes[0, 0], 0, [], []
    axis.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
    for name, rows in shown:
        colour = colour_of(name, view.valences.get(name))
        axis.text(0.0, place, str(name), transform=axis.get_yaxis_transform(), fontweight="bold", va="center")
        place += 1
        for row in rows.to_dict("records"):
            scale = row["standardized"] / row["difference"] if row["difference"] else 0.0
            ends = [row["low"] * scale, row["high"] * scale]
            axis.plot(ends, [place, place], color=colour, linewidth=1.2)
            face = colour if row["found"] else "white"
            axis.plot(row["standardized"], place, "o", color=colour, markerfacecolor=face)
            address = links.captured([name], token=f"feature-{row['feature']}")
            link_row(axis, place, address, f"conversations of {name} by feature {row['feature']}, {row['part']}")
            labels.append(f"{row['feature']}, {row['part']}")
            ticks.append(place)
            place += 1
    axis.set_yticks(ticks, labels)
    axis.set_ylim(place - 0.4, -0.6)
    axis.set_xlabel(f"difference to {table['reference'].iloc[0]}, standard deviations")
    handles = [
        Line2D([], [], marker="o", linestyle="", color=INK, label="differs, corrected"),
        Line2D([], [], marker="o", linestyle="", color=INK, markerfacecolor="white", label="not shown to"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8)
    return figure


def baselines(view: ExperimentView) -> Figure:
    """For each tone, how well one feature tells it from the reference, by the way that the feature was found."""
    table = view.table("features")
    known = table[table["auroc"].notna()]
    if known.empty:
        return empty_figure("No feature could be tested.")
    tones = [name for name in dict.fromkeys(table["variant"]) if known["variant"].eq(name).any()]
    figure, axes = new_figure(2 * ROW * len(tones) + 1.3, columns=2, sharey=True)
    for axis, part in zip(axes[0], ("question", "response"), strict=True):
        axis.axvline(0.5, color=FAINT, linewidth=0.8, zorder=0)
        for number, (method, (colour, marker, _)) in enumerate(METHODS.items()):
            offset = 0.16 * (number - 1.5)
            tested = known[(known["method"] == method) & (known["part"] == part)]
            points: list[tuple[float, float]] = [
                (first, place + offset)
                for place, tone in enumerate(tones)
                if (first := _first(tested, tone)) is not None
            ]
            if points:
                axis.plot(*np.array(points).T, marker, color=colour, markersize=5, linestyle="")
        axis.set_title(part)
        axis.set_xlabel("AUROC, held out")
        axis.set_yticks(range(len(tones)), [str(tone) for tone in tones])
        axis.set_ylim(len(tones) - 0.5, -0.5)
    handles: list[Any] = [
        Line2D([], [], marker=marker, linestyle="", color=colour, label=label)
        for colour, marker, label in METHODS.values()
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, handletextpad=0.1)
    return figure


def _first(rows: pd.DataFrame, tone: str) -> float | None:
    """The area of the feature that was put up first."""
    of_tone = rows[rows["variant"] == tone]
    return None if of_tone.empty else float(of_tone["auroc"].iloc[int(of_tone["rank"].to_numpy(dtype=int).argmin())])
