"""Every figure of a report: what it shows, from which tables, and the function that draws it.

A new figure is one entry here and a caption in `captions/`; the rules, the page and Snakemake's own report find it.
Nothing is imported for drawing before a figure is drawn, so that a plan stays fast.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from emoprobe.config.experiment import Config
from emoprobe.results.catalogue import TABLES
from emoprobe.results.layout import Layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from emoprobe.report.figures.view import View

# Rule that makes tables → rule that draws figures with them; all other figures are those of behaviour.
DRAWING = {
    "probe_activations": "draw_probe_figures",
    "analyze_steering": "draw_steering_figures",
    "analyze_features": "draw_feature_figures",
    "tabulate_study": "report_study",
}
EMPTY = "nothing-to-draw"  # id in a figure that only says why there is nothing to see
CAPTIONS = Path(__file__).parents[1] / "captions"


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    `part` is the heading that it stands under, `tables` what it is drawn from, `function` the function of a `View` that
    draws it, as `module:name` below this package.
    """

    name: str
    part: str
    tables: tuple[str, ...]
    function: str

    @property
    def rule(self) -> str:
        """The Snakemake rule that draws it, by where its tables come from."""
        makers = {TABLES[table].rule for table in self.tables}
        return next((DRAWING[maker] for maker in DRAWING if maker in makers), "draw_figures")

    @property
    def caption(self) -> str:
        """Description of the figure in a few sentences of reStructuredText."""
        return self.caption_file.read_text(encoding="utf-8").strip()

    @property
    def caption_file(self) -> Path:
        """The file with the caption."""
        return CAPTIONS / f"{self.name}.rst"

    def draw(self, view: View) -> Drawing:
        """Draw it from the tables of an experiment."""
        import matplotlib as mpl

        from emoprobe.report.figures.style import STYLE

        module, _, name = self.function.partition(":")
        # Other figures of the process, such as those of a notebook, keep their style.
        with mpl.rc_context(STYLE):
            drawing: Drawing = getattr(import_module(f"{__name__}.{module}"), name)(view)
        return drawing


FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure("accuracy", "Behaviour", ("accuracy",), "behaviour:accuracy"),
        Figure("outcomes", "Behaviour", ("outcomes",), "behaviour:outcomes"),
        Figure("paired_differences", "Behaviour", ("paired_tests",), "behaviour:paired_differences"),
        Figure("lengths", "Behaviour", ("trajectories",), "behaviour:lengths"),
        Figure("consistency", "Behaviour", ("consistency",), "behaviour:consistency"),
        Figure("probe_auroc", "Probes", ("probes",), "probes:auroc"),
        Figure("probe_transfer", "Probes", ("probe_tests", "probe_transfer"), "probes:transfers"),
        Figure("direction_cosines", "Probes", ("direction_cosines",), "probes:cosines"),
        Figure(
            "steering_dose_response",
            "Steering",
            ("steering_effects", "steering_tests"),
            "steering:dose_response",
        ),
        Figure("steering_cost", "Steering", ("steering_effects",), "steering:cost"),
        Figure("feature_effects", "Features", ("features",), "features:effects"),
        Figure("feature_baselines", "Features", ("features",), "features:baselines"),
        Figure("study_forest", "Comparisons", ("study_paired_tests", "study_accuracy"), "study:forest"),
        Figure("variant_plane", "Probes", ("variant_plane",), "probes:plane"),
    )
}


def figures_of(rule: str) -> list[str]:
    """The names of the figures that one rule draws."""
    return [figure.name for figure in FIGURES.values() if figure.rule == rule]


def table_rules(config: Config) -> list[str]:
    """Return the rules that make the tables of an experiment. Tables of other rules are left from another config."""
    probes = ["probe_activations"] if config.has_probes else []
    steering = ["tabulate_steering", "analyze_steering"] if config.steering.enabled else []
    features = ["measure_autoencoders", "analyze_features"] if config.features.enabled else []
    return ["tabulate_trajectories", "analyze_behaviour", *probes, *steering, *features]


def tables_there(layout: Layout, rules: Collection[str]) -> list[str]:
    """Return the names of the tables of some rules that exist."""
    return [name for name, table in TABLES.items() if table.rule in rules and layout.table(name).exists()]


def figures_of_tables(rules: Collection[str]) -> list[Figure]:
    """Return the figures that are drawn from tables of some rules alone."""
    return [figure for figure in FIGURES.values() if all(TABLES[table].rule in rules for table in figure.tables)]
