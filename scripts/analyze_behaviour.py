"""Compute what the variants did: accuracy, paired tests, the shape of the answers, agreement, workers."""

import argparse
from pathlib import Path

from scripts.lib import behaviour, consistency
from scripts.lib.config_files import load_config
from scripts.lib.paths import Layout
from scripts.lib.tables import read_table, write_table


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True, type=Path, help="folder of the experiment")
    parser.add_argument("--config", required=True, help="the experiment's configuration")
    arguments = parser.parse_args()
    layout, config = Layout(arguments.experiment), load_config(arguments.config)
    resamples, seed = config.probes.bootstrap, config.experiment.seed
    table = read_table(layout.table("trajectories"))
    write_table(layout.table("accuracy"), behaviour.accuracy(table), behaviour.ACCURACY)
    write_table(layout.table("paired_tests"), behaviour.paired_tests(table, resamples, seed), behaviour.PAIRED_TESTS)
    write_table(
        layout.table("characteristics"), behaviour.characteristics(table, resamples, seed), behaviour.CHARACTERISTICS
    )
    write_table(layout.table("consistency"), consistency.consistency(table), consistency.CONSISTENCY)
    write_table(layout.table("workers"), behaviour.workers(table), behaviour.WORKERS)


if __name__ == "__main__":
    main()
