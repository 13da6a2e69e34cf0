"""One style for all figures: colours that everybody can tell apart, also in grey, and fixed sizes in inches."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from html import escape, unescape
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from emoprobe.config.section import CONTROL
from emoprobe.report.figures import EMPTY
from emoprobe.results import atomic

# Okabe & Ito's palette (2008).
BY_VALENCE = {"negative": "#D55E00", "neutral": "#56B4E9", "positive": "#009E73", None: "#999999"}
INK, FAINT = "#222222", "#BBBBBB"
SEQUENTIAL, DIVERGING = "cividis", "RdBu_r"
WIDTH = 6.5  # the text width of a page
ROW = 0.3  # height of one row of labels

# Nearly transparent: browsers let nobody click on what is not painted.
UNSEEN: dict[str, Any] = {"facecolor": "white", "alpha": 0.01, "linewidth": 0, "zorder": 10}

STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "emoprobe",
}


@dataclass(frozen=True)
class Link:
    """A link of a figure: its title, and whether the keyboard reaches it."""

    title: str
    focusable: bool


class LinkedFigure(Figure):
    """A figure whose parts can be links."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.links: dict[str, Link] = {}


def link(artist: Artist, address: str, title: str, *, focusable: bool = True) -> None:
    """Make a part of a figure a link.

    Args:
        artist: the part.
        address: relative to the folder of the experiment or study; see `emoprobe.report.links`.
        title: what it opens.
        focusable: whether the keyboard reaches it; False where another link of the figure opens the same.
    """
    figure = artist.get_figure(root=True)
    assert isinstance(figure, LinkedFigure)
    # Figures lie one folder below.
    url = f"../{address}"
    artist.set_url(url)
    figure.links[url] = Link(title, focusable)


def link_row(axis: Axes, row: float, address: str, title: str) -> None:
    """Make a row of a horizontal chart a link, with its label at the left and its words at the right."""
    strip = Rectangle((-0.5, row - 0.45), 2.0, 0.9, transform=axis.get_yaxis_transform(), clip_on=False, **UNSEEN)
    strip.set_in_layout(False)
    axis.add_artist(strip)
    link(strip, address, title)


def link_area(axis: Axes, left: float, right: float, low: float, high: float, address: str, title: str) -> None:
    """Make an area of an axis, in its coordinates, a link for the mouse."""
    area = axis.add_patch(Rectangle((left, low), right - left, high - low, **UNSEEN))
    link(area, address, title, focusable=False)


def new_figure(
    height: float, columns: int = 1, rows: int = 1, width: float = WIDTH, **options: Any
) -> tuple[Figure, Any]:
    """A figure of the house style and its axes."""
    figure = LinkedFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def colour_of(variant: Any, valence: Any) -> str:
    """A variant's colour, by its valence."""
    return INK if variant == CONTROL else BY_VALENCE.get(valence if isinstance(valence, str) else None, FAINT)


def valence_legend(axis: Any, valences: list[Any]) -> None:
    """A legend of the valences that occur, above the axis."""
    occurring = {name for name in valences if isinstance(name, str)}
    present = [name for name in ("negative", "neutral", "positive") if name in occurring]
    handles = [Line2D([], [], marker="o", linestyle="", color=BY_VALENCE[name], label=name) for name in present]
    handles.append(Line2D([], [], marker="o", linestyle="", color=INK, label=CONTROL))
    axis.legend(handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(handles), handletextpad=0.1)


def empty_figure(message: str) -> Figure:
    """A figure that says why there is nothing to see."""
    figure, axes = new_figure(1.0)
    axes[0, 0].axis("off")
    axes[0, 0].text(0.5, 0.5, message, ha="center", va="center", color=INK, wrap=True, gid=EMPTY)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as SVG, the same bytes for the same figure."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        # `savefig` draws it twice for the same bytes.
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    links = figure.links if isinstance(figure, LinkedFigure) else {}
    text = re.sub(
        r'<a xlink:href="([^"]*)"[^>]*>', lambda match: _with_title(match[1], links), buffer.getvalue().decode()
    )
    atomic.write_text(path, text)


def _with_title(href: str, links: dict[str, Link]) -> str:
    link = links[unescape(href)]
    tab = "" if link.focusable else ' tabindex="-1"'
    return f'<a xlink:href="{href}"{tab}><title>{escape(link.title)}</title>'
