"""List the answers that people may label, for the judges of an experiment."""

from emoprobe.analysis.labels import write_answers_to_label
from emoprobe.results.tables import read_table
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    write_answers_to_label(config, layout, read_table(layout.root, "trajectories"))


if __name__ == "__main__":
    main()
