"""Draw figures of an experiment by their names; without a name, all whose tables are there."""

import argparse

from emoprobe.report.figures import FIGURES
from emoprobe.report.figures.style import save_figure
from emoprobe.report.figures.view import View
from scripts.arguments import add_experiment, read_experiment


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_experiment(parser)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(FIGURES)}")
    config, layout, arguments = read_experiment(parser)
    drawable = [name for name, figure in FIGURES.items() if all(layout.table(each).exists() for each in figure.tables)]
    for name in arguments.names or drawable:
        save_figure(FIGURES[name].draw(View(layout, config)), layout.figure(name))


if __name__ == "__main__":
    main()
