"""Gather all trajectories of an experiment into one table."""

from emoprobe.conversations.samples import experiment_pairs
from emoprobe.graders.registry import GraderError
from emoprobe.stages.trajectories import tabulate
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    with exit_on(GraderError):
        tabulate(config, layout, experiment_pairs(config))


if __name__ == "__main__":
    main()
