"""Gather all trajectories of an experiment into one table."""

import argparse
import sys
from pathlib import Path

from emoprobe.analysis.trajectory_table import find_pairs, trajectory_table
from emoprobe.config.files import load_config
from emoprobe.results.layout import Layout
from emoprobe.results.record import DamagedError
from emoprobe.results.tables import write_table
from emoprobe.tasks.samples import experiment_pairs


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="the experiment's configuration; without it: every trajectory there is")
    parser.add_argument("--experiment", required=True, type=Path, help="folder of the experiment")
    arguments = parser.parse_args()
    layout = Layout(arguments.experiment)
    config = load_config(arguments.config) if arguments.config else None
    wanted = find_pairs(layout.root) if config is None else experiment_pairs(config)
    try:
        table = trajectory_table(layout.root, wanted, config)
    except DamagedError as error:
        sys.exit(str(error))
    write_table(layout, "trajectories", table)


if __name__ == "__main__":
    main()
