"""Compute what the variants did: accuracy, paired tests, the shape of the answers, agreement, workers."""

from emoprobe.analysis import behaviour, consistency
from emoprobe.results.tables import read_table, write_table
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    resamples, seed = config.analysis.bootstrap, config.experiment.seed
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
