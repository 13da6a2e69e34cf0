"""What the probes found: AUROC by layer and position, cosines of directions, the plane of the variants."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from emoprobe.report.figures.style import DIVERGING, INK, SEQUENTIAL, colour_of, empty_figure, new_figure
from emoprobe.report.figures.view import View

MAX_TICKS = 12
KEY_WIDTH = 110  # characters that fit under a figure
MIN_ASPECT = 0.2
MANY = 8  # variants


def auroc(view: View) -> Figure:
    """AUROC of every probe: a panel for each target and hook point, layers across, positions down.

    A dot marks a cell whose interval includes the best permutation of the labels: it is no better than its baseline.
    """
    probes = view.table("probes")
    fitted = probes[probes["skipped"].isna()]
    if fitted.empty:
        reasons = "; ".join(f"{row.target}: {row.skipped}" for row in probes.itertuples())
        return empty_figure(f"No probe was fitted. {reasons}")
    targets, points = list(fitted["target"].unique()), list(fitted["hook_point"].unique())
    positions = list(fitted["position"].unique())
    figure, axes = new_figure(
        (0.22 * len(positions) + 0.75) * len(targets) + 0.5, columns=len(points), rows=len(targets), width=8.0
    )
    for row, target in enumerate(targets):
        for column, point in enumerate(points):
            axis = axes[row, column]
            own = fitted[(fitted["target"] == target) & (fitted["hook_point"] == point)]
            grid = own.pivot(index="position", columns="layer", values="auroc").loc[positions]
            baseline = (
                own.assign(b=own["permutation_auroc_high"].fillna(0.5))
                .pivot(index="position", columns="layer", values="b")
                .loc[positions]
            )
            low = own.pivot(index="position", columns="layer", values="auroc_low").loc[positions]
            image = axis.imshow(grid.to_numpy(dtype=float), vmin=0.5, vmax=1.0, cmap=SEQUENTIAL, aspect="auto")
            weak = np.argwhere(~(low.to_numpy(dtype=float) > baseline.to_numpy(dtype=float)))
            axis.plot(weak[:, 1], weak[:, 0], ".", color="white", markersize=3)
            layers = list(grid.columns)
            every = max(1, -(-len(layers) // MAX_TICKS))
            axis.set_xticks(range(0, len(layers), every), [str(int(layer)) for layer in layers[::every]])
            axis.set_yticks(range(len(positions)), positions if column == 0 else [])
            best = float(np.nanmax(grid.to_numpy(dtype=float)))
            title = f"{target}, best {best:.2f}"
            axis.set_title(f"{title}\n{point}" if row == 0 else title, fontsize=9)
            if row == len(targets) - 1:
                axis.set_xlabel("layer")
    figure.colorbar(image, ax=axes, shrink=0.6, label="AUROC (white dot: not above baseline)")
    return figure


def cosines(view: View) -> Figure:
    """Cosines between the variants' mean differences to control, in the middle and at the end of the model."""
    table, position = view.table("direction_cosines"), view.position
    own = table[table["position"] == position]
    if own.empty:
        return empty_figure("There is no variant besides control.")
    names = list(own["variant"].unique())
    point = list(own["hook_point"].unique())[-1]
    layers = sorted(own["layer"].unique())
    shown = [layers[len(layers) // 4], layers[len(layers) // 2], layers[-1]]
    # Three large matrices would be wider than a page.
    chosen = list(dict.fromkeys(shown if len(names) <= MANY else shown[1:]))
    side = max(2.2, 0.36 * len(names) + 0.9)
    figure, axes = new_figure(side + 0.5, columns=len(chosen), width=max(6.5, side * len(chosen) + 0.6))
    for number, layer in enumerate(chosen):
        axis = axes[0, number]
        cell = own[(own["layer"] == layer) & (own["hook_point"] == point)]
        matrix = cell.pivot(index="variant", columns="other", values="cosine").loc[names, names].to_numpy(dtype=float)
        image = axis.imshow(matrix, vmin=-1, vmax=1, cmap=DIVERGING)
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(names)), names if number == 0 else [])
        axis.set_title(f"layer {layer}")
        for row in range(len(names)):
            for column in range(len(names)):
                value = matrix[row, column]
                colour = "white" if abs(value) > 0.6 else INK
                axis.text(column, row, f"{value:.1f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, shrink=0.7, label=f"cosine at {position}")
    return figure


def plane(view: View) -> Figure:
    """The variants' mean activations in their principal plane, for a few layers."""
    table, position, valences = view.table("variant_plane"), view.position, view.valences
    own = table[table["position"] == position]
    if own.empty:
        return empty_figure("There are no variants to compare.")
    point = list(own["hook_point"].unique())[-1]
    own = own[own["hook_point"] == point]
    layers = sorted(own["layer"].unique())
    chosen = sorted({layers[round(share * (len(layers) - 1))] for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)})
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = new_figure(2.5 * rows + 0.5, columns=columns, rows=rows, width=8.0)
    for axis in axes.flat[len(chosen) :]:
        axis.axis("off")
    for axis, layer in zip(axes.flat, chosen, strict=False):
        cell = own[own["layer"] == layer]
        numbers = range(1, len(cell) + 1)
        for number, entry in zip(numbers, cell.itertuples(), strict=True):
            colour = colour_of(entry.variant, valences.get(str(entry.variant)))
            axis.plot(entry.pc1, entry.pc2, "o", color=colour, markersize=11)
            axis.text(entry.pc1, entry.pc2, str(number), ha="center", va="center", fontsize=7, color="white")
        first, second = cell["explained1"].iloc[0], cell["explained2"].iloc[0]
        axis.set_title(f"layer {layer}")
        axis.set_xlabel(f"PC 1 ({first:.0%})", fontsize=8)
        axis.set_ylabel(f"PC 2 ({second:.0%})", fontsize=8)
        axis.margins(0.15)
        _widen(axis, float(np.ptp(cell["pc1"])))
        axis.tick_params(labelsize=7)
    names = list(own[own["layer"] == chosen[0]]["variant"])
    # An entry is not broken: its number stays with its name.
    text = "   ".join(f"{number}\N{NO-BREAK SPACE}{name}" for number, name in enumerate(names, 1))
    figure.supxlabel(textwrap.fill(text, KEY_WIDTH, break_on_hyphens=False), fontsize=8)
    return figure


def _widen(axis: Axes, other: float) -> None:
    """Keep a second component of rounding noise (two variants have only one) from filling the height."""
    low, high = axis.get_ylim()
    least, middle = MIN_ASPECT * other, (low + high) / 2
    if high - low < least:
        axis.set_ylim(middle - least / 2, middle + least / 2)
