"""Gather all trajectories of an experiment into one table."""

import sys

from emoprobe.results.record import DamagedError
from emoprobe.stages.trajectories import tabulate
from emoprobe.tasks.samples import experiment_pairs
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    try:
        tabulate(config, layout, experiment_pairs(config))
    except DamagedError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
