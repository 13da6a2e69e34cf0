"""Figures across the experiments of a study."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from emoprobe.analysis.conclusion import plain_rows
from emoprobe.analysis.outcomes import column_and_category, judge_of, measured_column, primary_rows, title_of, value_of
from emoprobe.analysis.study import shared_rows, valences_of
from emoprobe.report import links
from emoprobe.report.figures.style import INK, ROW, colour_of, empty_figure, link_row, new_figure, valence_legend
from emoprobe.report.figures.view import View

MOST_ROWS = 80  # more do not fit on a page


def forest(view: View) -> Figure:
    """Forest plot: the planned and primary comparisons of every experiment, grouped by what is compared.

    It shows strict accuracy or, where the experiments do not share it, the first outcome that they share.
    """
    tests = primary_rows(shared_rows(view.table("study_paired_tests")))
    tests = tests[tests["low"].notna()]
    if tests.empty:
        return empty_figure("There is no comparison with an interval.")
    valences = valences_of(view.table("study_accuracy"))
    count = len(tests)
    tests = tests.sort_values(["variant", "reference", "measure"], kind="stable").head(MOST_ROWS)
    figure, axes = new_figure(1.2 + ROW * len(tests), width=8.0)
    axis = axes[0, 0]
    rows = np.arange(len(tests))[::-1]
    labels, shown = [], []
    for row, entry in zip(rows, tests.itertuples(), strict=True):
        there = valences[str(entry.experiment)]
        shown.append(there.get(str(entry.variant)))
        colour = colour_of(entry.variant, shown[-1])
        decided = entry.verdict_study not in ("undecided", "note")
        axis.plot([entry.low, entry.high], [row, row], color=colour, linewidth=2, solid_capstyle="butt")
        axis.plot(
            entry.difference, row, "s", markersize=6, markeredgecolor=colour, color=colour if decided else "white"
        )
        _, category = column_and_category(str(entry.measure))
        labels.append(f"{entry.variant} − {entry.reference}{f': {category}' if category else ''}, {entry.experiment}")
        address = links.contrast(str(entry.variant), str(entry.reference), there)
        link_row(axis, row, f"../{entry.experiment}/{address}", f"conversations behind {labels[-1]}")
        axis.annotate(
            str(entry.verdict_study).replace("_", " "), (1.0, row), xycoords=("axes fraction", "data"), xytext=(4, 0),
            textcoords="offset points", va="center", fontsize=8, color=INK,
        )  # fmt: skip
    axis.axvline(0.0, color=INK, linewidth=0.8)
    axis.set_yticks(rows, labels)
    axis.set_ylim(-0.6, len(tests) - 0.4)
    titles = {title_of(measured_column(row["measure"]), value_of(row), judge_of(row)) for row in plain_rows(tests)}
    axis.set_xlabel(f"difference of {' or '.join(sorted(titles))}, 95 % interval")
    if count > len(tests):
        axis.set_title(f"the first {len(tests)} of {count} comparisons; study_paired_tests has all", fontsize=9)
    valence_legend(axis, shown)
    return figure
