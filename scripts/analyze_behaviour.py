"""Compute what the variants did: accuracy, paired tests, the shape of the answers, agreement, workers."""

from emoprobe.analysis import behaviour, consistency, paired_tests, workers
from emoprobe.results.tables import read_table, write_table
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    table = read_table(layout.root, "trajectories")
    references, margin = config.analysis.references, config.analysis.margin
    write_table(layout, "accuracy", behaviour.accuracy(table))
    write_table(layout, "paired_tests", paired_tests.paired_tests(table, margin, references))
    write_table(layout, "characteristics", behaviour.characteristics(table, references))
    write_table(layout, "consistency", consistency.consistency(table))
    write_table(layout, "workers", workers.workers(table))


if __name__ == "__main__":
    main()
