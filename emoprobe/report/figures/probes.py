"""What the probes found: areas by layer and position, transfers, cosines of directions, the plane of the variants."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from emoprobe.report import links
from emoprobe.report.figures.style import (
    DIVERGING,
    FAINT,
    INK,
    colour_of,
    empty_figure,
    link,
    link_area,
    link_row,
    new_figure,
)
from emoprobe.report.figures.view import ExperimentView

MAX_TICKS = 12
# Target of a probe → the direction of its weights in the explorer.
DIRECTIONS = {"valence": "valence (probe)", "correct": "correct (probe)"}
NUMBER = 0.13  # room for the number of a point, in inches
KEY_WIDTH = 110  # characters that fit under a figure
MIN_ASPECT = 0.2
MANY = 8  # variants
# Of positions: mostly Okabe & Ito (2008).
LINES = ("#0072B2", "#E69F00", "#CC79A7", "#000000", "#8A6D3B", "#56B4E9", "#D55E00")


def auroc(view: ExperimentView) -> Figure:
    """Area of every probe by layer: a panel for each target and hook point, a line for each position.

    The grey band reaches from ½ to the 95 % quantile of permuted labels, at the position where that is highest; dashes
    are the nuisance features. A ring marks cells whose p, corrected over all cells, is at most 0.05.
    """
    probes = view.table("probes")
    fitted = probes[probes["skipped"].isna()]
    if fitted.empty:
        reasons = "; ".join(f"{row.target}: {row.skipped}" for row in probes.itertuples())
        return empty_figure(f"No probe was fitted. {reasons}")
    targets, points = list(fitted["target"].unique()), list(fitted["hook_point"].unique())
    positions = list(fitted["position"].unique())
    figure, axes = new_figure(
        2.1 * len(targets) + 1.0, columns=len(points), rows=len(targets), width=8.0, sharey=True, sharex="col"
    )
    for row, target in enumerate(targets):
        for column, point in enumerate(points):
            axis = axes[row, column]
            panel = fitted[(fitted["target"] == target) & (fitted["hook_point"] == point)]
            _areas(axis, panel, positions)
            title = "variant (manipulation check)" if target == "variant" else target
            axis.set_title(f"{title}\n{point}" if row == 0 else title, fontsize=9)
            layers = sorted(panel["layer"].unique())
            for place, layer in enumerate(layers):
                shown = {
                    "layer": layer,
                    "hook": point,
                    **({"direction": DIRECTIONS[target]} if target in DIRECTIONS else {}),
                }
                address, words = links.captured(**shown), f"layer {layer}: conversations with activations"
                link_area(axis, place - 0.5, place + 0.5, 0.0, 1.0, address, words)
            if row == len(targets) - 1:
                axis.set_xlabel("layer")
                for label, place in zip(axis.get_xticklabels(), axis.get_xticks(), strict=True):
                    layer = layers[int(place)]
                    link(label, links.captured(layer=layer), f"layer {layer}: conversations with activations")
            if column == 0:
                axis.set_ylabel("AUROC")
    values = fitted[["auroc", "nuisance_auroc", "null_high"]].to_numpy(dtype=float)
    axes[0, 0].set_ylim(min(0.4, float(np.nanmin(values)) - 0.02), 1.02)
    handles: list[Any] = [Line2D([], [], color=LINES[n % len(LINES)], label=name) for n, name in enumerate(positions)]
    handles += [
        Line2D([], [], color=INK, linestyle=(0, (2, 2)), linewidth=0.9, label="nuisance features"),
        Line2D([], [], marker="o", linestyle="", markerfacecolor="none", color=INK, label="p ≤ 0.05 over all cells"),
        Patch(color=FAINT, alpha=0.5, linewidth=0, label="permuted labels, 95 %"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return figure


def _areas(axis: Axes, panel: pd.DataFrame, positions: list[str]) -> None:
    """One panel: a line for each position, its nuisance features, the null's band."""
    layers = sorted(panel["layer"].unique())
    places = {layer: number for number, layer in enumerate(layers)}
    band = panel.groupby("layer")["null_high"].max().reindex(layers).to_numpy(dtype=float)
    if np.isfinite(band).any():
        x = np.arange(len(layers), dtype=float)
        if len(x) == 1:
            x, band = np.array([-0.4, 0.4]), np.repeat(band, 2)
        axis.fill_between(x, 0.5, band, color=FAINT, alpha=0.5, linewidth=0)
    axis.axhline(0.5, color=FAINT, linewidth=0.8, zorder=0)
    for number, position in enumerate(positions):
        line = panel[panel["position"] == position].sort_values("layer")
        if line.empty:
            continue
        colour = LINES[number % len(LINES)]
        at = [places[layer] for layer in line["layer"]]
        axis.plot(at, line["auroc"], color=colour, linewidth=1.3, marker="." if len(layers) < 4 else None)
        if line["nuisance_auroc"].notna().any():
            ends = [at[0] - 0.4, at[0] + 0.4] if len(at) == 1 else at
            level = float(line["nuisance_auroc"].iloc[0])
            axis.plot(ends, [level] * len(ends), color=colour, linestyle=(0, (2, 2)), linewidth=0.9)
        clear = line[line["p"] <= 0.05]
        axis.plot(
            [places[layer] for layer in clear["layer"]], clear["auroc"], "o", markerfacecolor="none", color=colour,
            markersize=4,
        )  # fmt: skip
    every = max(1, -(-len(layers) // MAX_TICKS))
    axis.set_xticks(range(0, len(layers), every), [str(int(layer)) for layer in layers[::every]])
    axis.set_xlim(-0.5, len(layers) - 0.5)


def transfers(view: ExperimentView) -> Figure:
    """Plot the transfer of probes to other positions, held-out texts and held-out variants."""
    table = view.table("probe_transfer")
    chosen = [cell for cell in _cells(view) if cell["target"] in set(table["target"])]
    if not chosen:
        return empty_figure("There is no probe of valence or correctness to test elsewhere.")
    most = max(len(_lines(table, cell)) for cell in chosen)
    figure, axes = new_figure(0.9 + max(1.9, 0.2 * most), columns=2, rows=len(chosen), width=8.0)
    figure.set_figheight(len(chosen) * figure.get_figheight())
    for row, cell in enumerate(chosen):
        _position_matrix(figure, axes[row, 0], table, cell)
        _held_out(axes[row, 1], _lines(table, cell), view.valences, int(cell["layer"]))
        axes[row, 0].set_title(f"{cell['target']}, layer {int(cell['layer'])}\n{cell['hook_point']}", fontsize=9)
        axes[row, 1].set_title(f"left out at {cell['position']}", fontsize=9)
    return figure


def _cells(view: ExperimentView) -> list[dict[str, Any]]:
    """The cell that most training sets choose, for each target that has one."""
    tests = view.table("probe_tests")
    known = tests[tests["layer"].notna()]
    return [{str(key): value for key, value in row.items()} for row in known.to_dict("records")]


def _rows_of_cell(table: pd.DataFrame, cell: dict[str, Any]) -> pd.DataFrame:
    here = (table["hook_point"] == cell["hook_point"]) & (table["layer"] == cell["layer"])
    rows_of_cell: pd.DataFrame = table.loc[here & (table["target"] == cell["target"])]
    return rows_of_cell


def _lines(table: pd.DataFrame, cell: dict[str, Any]) -> pd.DataFrame:
    """Return the held-out part of a cell, with its area."""
    of_cell = _rows_of_cell(table, cell)
    held_out: pd.DataFrame = of_cell.loc[
        (of_cell["kind"] != "position") & (of_cell["test"] == cell["position"]) & of_cell["auroc"].notna()
    ]
    return held_out


def _position_matrix(figure: Figure, axis: Axes, table: pd.DataFrame, cell: dict[str, Any]) -> None:
    of_cell = _rows_of_cell(table, cell)
    of_cell = of_cell[of_cell["kind"] == "position"]
    names = list(dict.fromkeys(of_cell["train"]))
    grid = of_cell.pivot(index="train", columns="test", values="auroc").loc[names, names].to_numpy(dtype=float)
    image = axis.imshow(grid, vmin=0.0, vmax=1.0, cmap=DIVERGING, aspect="auto")
    axis.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel("tested at")
    axis.set_ylabel("trained at")
    for row in range(len(names)):
        for column in range(len(names)):
            value = grid[row, column]
            colour = "white" if abs(value - 0.5) > 0.3 else INK
            axis.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axis, shrink=0.8, label="AUROC")


def _held_out(axis: Axes, lines: pd.DataFrame, valences: dict[str, str | None], layer: int) -> None:
    places = np.arange(len(lines))[::-1]
    for place, entry in zip(places.tolist(), lines.to_dict("records"), strict=True):
        colour = colour_of(entry["train"], valences.get(str(entry["train"]))) if entry["kind"] == "variant" else INK
        axis.plot([0.5, entry["auroc"]], [place, place], color=colour, linewidth=1)
        axis.plot(
            entry["auroc"], place, "o" if entry["kind"] == "variant" else "D", color=colour, markersize=4, clip_on=False
        )
        if entry["train"] in valences:
            name = str(entry["train"])
            link_row(axis, place, links.captured([name], layer=layer), f"conversations of {name} with activations")
    axis.axvline(0.5, color=INK, linewidth=0.8)
    axis.set_yticks(places, list(lines["train"]), fontsize=8)
    axis.set_ylim(-0.6, len(lines) - 0.4)
    axis.set_xlim(0.0, 1.0)
    axis.set_xlabel("AUROC on what was left out")


def cosines(view: ExperimentView) -> Figure:
    """Cosines between the variants' directions over disjoint halves of the questions, at depths of the model.

    A star marks an interval that excludes 0; the diagonal shows how well two halves agree on one direction.
    """
    table, position = view.table("direction_cosines"), view.position
    here = table[table["position"] == position]
    if here.empty:
        return empty_figure(f"There is no variant besides the reference at {position}.")
    names = list(here["variant"].unique())
    point = list(here["hook_point"].unique())[-1]
    layers = sorted(here["layer"].unique())
    shown = [layers[len(layers) // 4], layers[len(layers) // 2], layers[-1]]
    # Three large matrices would be wider than a page.
    chosen = list(dict.fromkeys(shown if len(names) <= MANY else shown[1:]))
    side = max(2.2, 0.36 * len(names) + 0.9)
    figure, axes = new_figure(side + 0.5, columns=len(chosen), width=max(6.5, side * len(chosen) + 0.6))
    for number, layer in enumerate(chosen):
        axis = axes[0, number]
        cell = here[(here["layer"] == layer) & (here["hook_point"] == point)]
        grids = {
            column: cell.pivot(index="variant", columns="other", values=column).loc[names, names].to_numpy(dtype=float)
            for column in ("cosine", "low", "high")
        }
        image = axis.imshow(grids["cosine"], vmin=-1, vmax=1, cmap=DIVERGING)
        axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_yticks(range(len(names)), names if number == 0 else [])
        axis.set_title(f"layer {layer}")
        for label, name in zip(axis.get_yticklabels() if number == 0 else [], names, strict=False):
            address = links.captured([name], layer=layer, direction=name)
            link(label, address, f"conversations of {name} with activations")
        for row in range(len(names)):
            for column in range(len(names)):
                value = grids["cosine"][row, column]
                away = grids["low"][row, column] > 0 or grids["high"][row, column] < 0
                # Without a minus before a zero.
                text = "–" if np.isnan(value) else f"{round(value, 1) + 0.0:.1f}" + ("*" if away else "")
                colour = "white" if abs(value) > 0.6 else INK
                axis.text(column, row, text, ha="center", va="center", fontsize=7, color=colour)
    figure.colorbar(image, ax=axes, shrink=0.7, label=f"cosine at {position}")
    return figure


def plane(view: ExperimentView) -> Figure:
    """The variants' mean activations in their principal plane, for a few layers."""
    table, position, valences = view.table("variant_plane"), view.position, view.valences
    here = table[table["position"] == position]
    if here.empty:
        return empty_figure("There are no variants to compare.")
    point = list(here["hook_point"].unique())[-1]
    here = here[here["hook_point"] == point]
    layers = sorted(here["layer"].unique())
    chosen = sorted({layers[round(share * (len(layers) - 1))] for share in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)})
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, axes = new_figure(2.5 * rows + 0.5, columns=columns, rows=rows, width=8.0)
    for axis in axes.flat[len(chosen) :]:
        axis.axis("off")
    for axis, layer in zip(axes.flat, chosen, strict=False):
        cell = here[here["layer"] == layer]
        colours = [colour_of(name, valences.get(str(name))) for name in cell["variant"]]
        for name, first, second, colour in zip(cell["variant"], cell["pc1"], cell["pc2"], colours, strict=True):
            (point_of,) = axis.plot(first, second, "o", color=colour, markersize=4.7, zorder=3)
            title = f"{name}, layer {layer}: conversations with activations"
            link(point_of, links.captured([name], layer=layer, hook=point), title)
        first, second = cell["explained1"].iloc[0], cell["explained2"].iloc[0]
        axis.set_title(f"layer {layer}")
        axis.set_xlabel(f"PC 1 ({first:.0%})", fontsize=8)
        axis.set_ylabel(f"PC 2 ({second:.0%})", fontsize=8)
        axis.margins(0.3)
        _widen(axis, float(np.ptp(cell["pc1"])))
        axis.tick_params(labelsize=7)
        _number(axis, cell[["pc1", "pc2"]].to_numpy(dtype=float), colours)
    names = list(here[here["layer"] == chosen[0]]["variant"])
    # An entry is not broken: its number stays with its name.
    text = "   ".join(f"{number}\N{NO-BREAK SPACE}{name}" for number, name in enumerate(names, 1))
    figure.supxlabel(textwrap.fill(text, KEY_WIDTH, break_on_hyphens=False), fontsize=8)
    return figure


def _number(axis: Axes, points: np.ndarray, colours: list[str]) -> None:
    """Number points beside them; the numbers of points that lie close together stand on a circle around these."""
    size = np.array([2.1, 1.8])  # of an axis, in inches
    lows, highs = np.array([axis.get_xlim(), axis.get_ylim()]).T
    inches = (points - lows) / (highs - lows) * size
    near_by = np.linalg.norm(inches[:, None] - inches[None], axis=2)
    _, groups = connected_components(csr_array(near_by < 2 * NUMBER))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        centre = inches[members].mean(axis=0)
        reach = np.linalg.norm(inches[members] - centre, axis=1).max()
        radius = max(reach + 1.3 * NUMBER, len(members) * NUMBER / (2 * np.pi)) if len(members) > 1 else 1.3 * NUMBER
        angles = np.arctan2(*(inches[members] - centre).T[::-1])
        order = np.argsort(angles, kind="stable")
        # A point that stands alone has its number on the side away from its neighbours.
        away = inches[members[0]] - np.average(inches, axis=0, weights=1 / (0.1 + near_by[members[0]]) ** 2)
        start = angles[order[0]] if len(members) > 1 else np.arctan2(away[1], away[0])
        for place, member in enumerate(members[order]):
            angle = start + 2 * np.pi * place / len(members)
            spot = centre + radius * np.array([np.cos(angle), np.sin(angle)])
            axis.annotate(
                str(member + 1), points[member], xytext=tuple(lows + spot / size * (highs - lows)), fontsize=7,
                ha="center", va="center", color=colours[member],
                arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.5, "shrinkA": 3, "shrinkB": 0},
            )  # fmt: skip


def _widen(axis: Axes, other: float) -> None:
    """Keep a second component of rounding noise (two variants have only one) from filling the height."""
    low, high = axis.get_ylim()
    least, middle = MIN_ASPECT * other, (low + high) / 2
    if high - low < least:
        axis.set_ylim(middle - least / 2, middle + least / 2)
