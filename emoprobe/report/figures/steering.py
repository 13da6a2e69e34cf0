"""What steering did: log p(gold) by dose beside the random directions, and what it cost in likely text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from emoprobe.report import links
from emoprobe.report.figures.style import (
    FAINT,
    INK,
    WIDTH,
    colour_of,
    empty_figure,
    link,
    new_figure,
    valence_legend,
)
from emoprobe.report.figures.view import ExperimentView

PRIMARY, COST = "log_p_gold", "perplexity"
CONTROLS = ("random", "shuffled")
MAX_COLUMNS = 4
NOTHING = "Nothing was added along any direction."


def dose_response(view: ExperimentView) -> Figure:
    """Effect on log p(gold) by dose: a row of panels for each tested direction, a column for each set of layers.

    The grey band holds 95 % of the random directions, on the questions that they share with the direction. A hollow
    mark is a dose at which the text is not coherent; a square the cell that the test is about.
    """
    effects, tests = view.table("steering_effects"), view.table("steering_tests")
    added = _added(effects, PRIMARY)
    added = added[~added["family"].isin(CONTROLS)]
    if added.empty:
        return empty_figure(NOTHING)
    names = list(added["direction"].unique())
    lines = list(dict.fromkeys(zip(added["layers"], added["phase"], strict=True)))
    columns = _shown(lines, tests)
    figure, axes = new_figure(
        1.55 * len(names) + 1.0, columns=len(columns), rows=len(names), width=max(WIDTH, 2.2 * len(columns)),
        sharex=True, sharey=True,
    )  # fmt: skip
    variants = list(added["variant"].unique())
    phases = {phase for _, phase in lines}
    for row, name in enumerate(names):
        chosen = tests[tests["direction"] == name].to_dict("records")
        for column, (layers, phase) in enumerate(columns):
            axis = axes[row, column]
            here = added[(added["direction"] == name) & (added["layers"] == layers) & (added["phase"] == phase)]
            for number, variant in enumerate(variants):
                line = here[here["variant"] == variant].sort_values("dose")
                _line(axis, line, _shade(view, line, number), chosen[0] if chosen else {})
            axis.axhline(0.0, color=INK, linewidth=0.6, zorder=1)
            axis.axvline(0.0, color=FAINT, linewidth=0.6, zorder=0)
            if row == 0:
                title = f"layers {layers}" if "+" in layers else f"layer {layers}"
                axis.set_title(title + (f", {phase}" if len(phases) > 1 else ""), fontsize=9)
            if row == len(names) - 1:
                axis.set_xlabel("dose (median norms)", fontsize=8)
            if column == 0:
                axis.set_ylabel(_broken(name), fontsize=8)
    figure.supylabel("change of log p(gold), nats", fontsize=9)
    handles = [
        Line2D([], [], color=INK, marker="o", markersize=4, linewidth=1.3, label="effect, 95 % interval"),
        Line2D([], [], color=INK, marker="o", markersize=4, markerfacecolor="white", linewidth=0, label="not coherent"),
        Line2D([], [], color=INK, marker="s", markersize=6, linewidth=0, label="largest, tested"),
        Patch(color=FAINT, alpha=0.45, linewidth=0, label="random directions, 95 %"),
    ]
    if len(variants) > 1:
        handles += [
            Line2D([], [], color=INK, linestyle=STYLES[number % len(STYLES)], linewidth=1.2, label=f"in {variant}")
            for number, variant in enumerate(variants)
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8)
    return figure


STYLES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (4, 1, 1, 1)))


def _line(axis: Axes, line: pd.DataFrame, style: dict[str, Any], chosen: dict[str, Any]) -> None:
    """The effects of one direction in one variant, with the band of the random directions."""
    if line.empty:
        return
    doses = line["dose"].to_numpy()
    band = line.dropna(subset=["control_low"])
    if len(band):
        edges = [(dose, low, high) for dose, low, high in band[["dose", "control_low", "control_high"]].to_numpy()]
        at, low, high = np.array(sorted([*edges, (0.0, 0.0, 0.0)])).T
        axis.fill_between(at, low, high, color=FAINT, alpha=0.45, linewidth=0, zorder=0)
    place = int(np.searchsorted(doses, 0.0))
    values = np.insert(line["estimate"].to_numpy(dtype=float), place, 0.0)
    axis.plot(np.insert(doses, place, 0.0), values, linewidth=1.2, zorder=2, **style)
    colour = style["color"]
    for entry in line.to_dict("records"):
        low, high = float(entry["low"]), float(entry["high"])
        axis.plot([entry["dose"]] * 2, [low, high], color=colour, linewidth=0.9, zorder=2)
        tested = all(entry[key] == chosen.get(key) for key in ("layers", "phase", "variant", "dose"))
        (mark,) = axis.plot(
            entry["dose"], entry["estimate"], "s" if tested else "o", color=colour, markersize=6 if tested else 4,
            markerfacecolor=colour if entry["coherent"] else "white", zorder=3,
        )  # fmt: skip
        # The keyboard reaches the tested dose; every other one is a step away in the explorer.
        link(mark, links.steered(entry), _condition(entry), focusable=tested)


def _condition(entry: dict[Any, Any]) -> str:
    return f"{entry['direction']}, layers {entry['layers']}, dose {entry['dose']:g}: its conversations"


def _shade(view: ExperimentView, line: pd.DataFrame, number: int) -> dict[str, Any]:
    """The colour of the tone, the dashes of the variant that is steered."""
    tone = None if line.empty else line["tone"].iloc[0]
    colour = colour_of(tone, view.valences.get(str(tone))) if isinstance(tone, str) else INK
    return {"color": colour, "linestyle": STYLES[number % len(STYLES)]}


def _shown(lines: list[tuple[str, str]], tests: pd.DataFrame) -> list[tuple[str, str]]:
    """The sets of layers with room for them: those that tests are about, then some at regular depths."""
    if len(lines) <= MAX_COLUMNS:
        return lines
    located = tests.dropna(subset=["layers"])
    tested = list(dict.fromkeys(zip(located["layers"], located["phase"], strict=True)))[:MAX_COLUMNS]
    spread = [lines[round(place)] for place in np.linspace(0, len(lines) - 1, MAX_COLUMNS)]
    chosen = list(dict.fromkeys([*tested, *spread]))[:MAX_COLUMNS]
    return [line for line in lines if line in chosen]


def _broken(name: str) -> str:
    """A long name on two lines."""
    return name if len(name) <= 14 else name.replace("-", "-\n", 1)


def cost(view: ExperimentView) -> Figure:
    """Effect on log p(gold) against the perplexity of the text: each mark is a dose of a direction in some layers."""
    effects = view.table("steering_effects")
    keys = ["direction", "family", "tone", "operation", "phase", "layers", "dose", "variant"]
    pair = [_added(effects, outcome).set_index(keys, drop=True) for outcome in (PRIMARY, COST)]
    both = pair[0][["estimate", "coherent"]].join(pair[1]["estimate"].rename("cost"), how="inner").reset_index()
    both = both.dropna(subset=["estimate", "cost"])
    if both.empty:
        return empty_figure(NOTHING if pair[0].empty else "No text has a perplexity.")
    figure, axes = new_figure(3.6)
    axis = axes[0, 0]
    random = both[both["family"].isin(CONTROLS)]
    for entry in [*random.to_dict("records"), *both[~both["family"].isin(CONTROLS)].to_dict("records")]:
        control = entry["family"] in CONTROLS
        tone = entry["tone"]
        colour = colour_of(tone, view.valences.get(tone)) if isinstance(tone, str) and not control else INK
        colour = FAINT if control else colour
        (mark,) = axis.plot(
            np.exp(entry["cost"]), entry["estimate"], "o", color=colour, markersize=3 if control else 5,
            markerfacecolor=colour if entry["coherent"] else "white", zorder=1 if control else 2,
        )  # fmt: skip
        link(mark, links.steered(entry), _condition(entry), focusable=False)
    axis.axhline(0.0, color=INK, linewidth=0.6, zorder=0)
    axis.axvline(1.0, color=INK, linewidth=0.6, zorder=0)
    axis.set_xscale("log")
    _ratio_ticks(axis)
    axis.set_xlabel("perplexity of the text, as a multiple of the unsteered one's (hollow: not coherent)")
    axis.set_ylabel("change of log p(gold), nats")
    tones = both.loc[~both["family"].isin(CONTROLS), "tone"].dropna().unique()
    valence_legend(axis, [view.valences.get(str(tone)) for tone in tones])
    legend = axis.get_legend()
    handles = [handle for handle in legend.legend_handles if handle.get_label() != "control"]
    if both.loc[~both["family"].isin(CONTROLS), "tone"].isna().any():
        handles.append(Line2D([], [], marker="o", linestyle="", color=INK, label="of no tone"))
    handles.append(Line2D([], [], marker="o", linestyle="", color=FAINT, label="random and shuffled"))
    axis.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=5, handletextpad=0.1, fontsize=8)
    return figure


def _ratio_ticks(axis: Axes) -> None:
    """Plain numbers where a logarithmic axis would have powers of ten."""
    low, high = axis.get_xlim()
    wide = [0.2, 0.5, 1, 2, 5, 10, 30, 100, 1000]
    steps = wide if high / low > 4 else [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.75, 2, 2.5, 3]
    ticks = [step for step in steps if low <= step <= high]
    axis.set_xticks(ticks, [f"{step:g}×" for step in ticks])
    axis.minorticks_off()


def _added(effects: pd.DataFrame, outcome: str) -> pd.DataFrame:
    """The rows of one outcome with a dose that was added."""
    added: pd.DataFrame = effects.loc[(effects["outcome"] == outcome) & (effects["operation"] == "add")]
    return added
