"""Compute what the variants did: accuracy and the record of the workers."""

import argparse
from pathlib import Path

from scripts.lib import behaviour
from scripts.lib.paths import Layout
from scripts.lib.tables import read_table, write_table


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True, type=Path, help="folder of the experiment")
    layout = Layout(parser.parse_args().experiment)
    table = read_table(layout.table("trajectories"))
    write_table(layout.table("accuracy"), behaviour.accuracy(table), behaviour.ACCURACY)
    write_table(layout.table("workers"), behaviour.workers(table), behaviour.WORKERS)


if __name__ == "__main__":
    main()
