"""Draw every figure of an experiment whose tables are there."""

from emoprobe.report.figures import FIGURES
from emoprobe.report.figures.style import save_figure
from emoprobe.report.figures.view import View
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    view = View(layout, config)
    for figure in FIGURES.values():
        if all(layout.table(name).exists() for name in figure.tables):
            save_figure(figure.draw(view), layout.figure(figure.name))


if __name__ == "__main__":
    main()
