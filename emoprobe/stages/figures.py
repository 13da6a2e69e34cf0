"""From tables to figures."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from emoprobe.config.experiment import Config
from emoprobe.report.figures import FIGURES, figures_of_tables, table_rules
from emoprobe.report.figures.style import save_figure
from emoprobe.report.figures.view import ExperimentView
from emoprobe.results.layout import Layout


def draw(config: Config, layout: Layout, names: Sequence[str] = (), rules: Collection[str] | None = None) -> None:
    """Draw figures by their names; without a name, all whose tables are there.

    Args:
        config: the experiment.
        layout: its folder.
        names: which figures.
        rules: the rules whose tables are drawn where no name is given, those of the config by default.
    """
    figures = figures_of_tables(table_rules(config) if rules is None else rules)
    drawable = [figure.name for figure in figures if all(layout.table(each).exists() for each in figure.tables)]
    view = ExperimentView(layout, config)
    for name in names or drawable:
        save_figure(FIGURES[name].draw(view), layout.figure(name))
