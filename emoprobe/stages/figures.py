"""From tables to figures."""

from __future__ import annotations

from collections.abc import Sequence

from emoprobe.config.experiment import Config
from emoprobe.report.figures import FIGURES
from emoprobe.report.figures.style import save_figure
from emoprobe.report.figures.view import ExperimentView
from emoprobe.results.layout import Layout


def draw(config: Config, layout: Layout, names: Sequence[str] = ()) -> None:
    """Draw figures by their names; without a name, all whose tables are there."""
    drawable = [name for name, figure in FIGURES.items() if all(layout.table(each).exists() for each in figure.tables)]
    view = ExperimentView(layout, config)
    for name in names or drawable:
        save_figure(FIGURES[name].draw(view), layout.figure(name))
