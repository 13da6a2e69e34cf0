"""Draw figures of an experiment by their names; without a name, all whose tables are there."""

import argparse

from emoprobe.report.figures import FIGURES
from emoprobe.stages.figures import draw
from scripts.arguments import add_experiment, exit_on, read_experiment


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_experiment(parser)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(FIGURES)}")
    config, layout, arguments = read_experiment(parser)
    with exit_on():
        draw(config, layout, arguments.names)


if __name__ == "__main__":
    main()
