"""Figures across the experiments of a study."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from emoprobe.analysis.outcomes import PRIMARY_MEASURE
from emoprobe.report import links
from emoprobe.report.figures.style import INK, ROW, colour_of, empty_figure, link_row, new_figure, valence_legend
from emoprobe.report.figures.view import View

MOST_ROWS = 80  # more do not fit on a page


def forest(view: View) -> Figure:
    """Forest plot: the planned and primary comparisons of every experiment, grouped by what is compared."""
    tests = view.table("study_paired_tests")
    tests = tests[(tests["family"] != "secondary") & (tests["measure"] == PRIMARY_MEASURE) & tests["low"].notna()]
    if tests.empty:
        return empty_figure("There is no comparison with an interval.")
    accuracy = view.table("study_accuracy")
    valences = dict(zip(accuracy["variant"], accuracy["valence"], strict=True))
    tests = tests.sort_values(["variant", "reference"], kind="stable").head(MOST_ROWS)
    figure, axes = new_figure(1.2 + ROW * len(tests), width=8.0)
    axis = axes[0, 0]
    rows = np.arange(len(tests))[::-1]
    labels = []
    for row, entry in zip(rows, tests.itertuples(), strict=True):
        colour = colour_of(entry.variant, valences.get(entry.variant))
        decided = entry.verdict_study not in ("undecided", "note")
        axis.plot([entry.low, entry.high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        axis.plot(
            entry.difference, row, "s", markersize=6, markeredgecolor=colour, color=colour if decided else "white"
        )
        labels.append(f"{entry.variant} − {entry.reference}, {entry.experiment}")
        there = accuracy[accuracy["experiment"] == entry.experiment]
        of_experiment = dict(zip(there["variant"], there["valence"], strict=True))
        address = links.contrast(str(entry.variant), str(entry.reference), of_experiment)
        link_row(axis, row, f"../{entry.experiment}/{address}", f"conversations behind {labels[-1]}")
        axis.annotate(
            str(entry.verdict_study).replace("_", " "), (1.0, row), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8, color=INK,
        )  # fmt: skip
    axis.axvline(0.0, color=INK, linewidth=0.8)
    axis.set_yticks(rows, labels)
    axis.set_ylim(-0.6, len(tests) - 0.4)
    axis.set_xlabel("difference of strict accuracy, 95 % interval")
    valence_legend(axis, [valences.get(variant) for variant in tests["variant"].unique()])
    return figure
