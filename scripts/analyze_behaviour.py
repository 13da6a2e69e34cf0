"""Compute what the variants did: accuracy, paired tests, the shape of the answers, agreement, workers."""

from emoprobe.analysis import behaviour, consistency
from emoprobe.results.tables import read_table, write_table
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    resamples, seed = config.analysis.bootstrap, config.experiment.seed
    table = read_table(layout.root, "trajectories")
    write_table(layout, "accuracy", behaviour.accuracy(table))
    write_table(layout, "paired_tests", behaviour.paired_tests(table, resamples, seed))
    write_table(layout, "characteristics", behaviour.characteristics(table, resamples, seed))
    write_table(layout, "consistency", consistency.consistency(table))
    write_table(layout, "workers", behaviour.workers(table))


if __name__ == "__main__":
    main()
