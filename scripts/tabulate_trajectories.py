"""Gather all trajectories of an experiment into one table."""

import argparse
import sys
from pathlib import Path

from scripts.lib.config_files import load_config
from scripts.lib.paths import Layout
from scripts.lib.tables import write_table
from scripts.lib.trajectories import DamagedError, experiment_pairs
from scripts.lib.trajectory_table import COLUMNS, find_pairs, trajectory_table


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", help="the experiment's configuration; without it: every trajectory there is")
    parser.add_argument("--experiment", required=True, type=Path, help="folder of the experiment")
    parser.add_argument("--output", type=Path, help="the table; default: tables/trajectories.parquet there")
    arguments = parser.parse_args()
    layout = Layout(arguments.experiment)
    config = load_config(arguments.config) if arguments.config else None
    wanted = find_pairs(layout.root) if config is None else experiment_pairs(config)
    try:
        table = trajectory_table(layout.root, wanted, config)
    except DamagedError as error:
        sys.exit(str(error))
    meanings = {column: meaning for column, (_, meaning) in COLUMNS.items()}
    write_table(arguments.output or layout.table("trajectories"), table, meanings)


if __name__ == "__main__":
    main()
