"""Fit one direction of an experiment on its activations."""

import argparse

from emoprobe.conversations.samples import DataError
from emoprobe.results.activation_folder import ActivationError
from emoprobe.steering.directions import DirectionError, fit
from emoprobe.steering.drawn import drawn_grid
from scripts.arguments import add_experiment, exit_on, read_experiment


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_experiment(parser)
    parser.add_argument("name", metavar="NAME", help="of the direction, such as joy")
    config, layout, arguments = read_experiment(parser)
    with exit_on(DirectionError, ActivationError, DataError):
        grid = drawn_grid(config, layout)
        if arguments.name not in grid.directions:
            parser.error(f"{arguments.name} is none of {', '.join(grid.directions) or 'no directions'}")
        fit(grid, layout, arguments.name)


if __name__ == "__main__":
    main()
