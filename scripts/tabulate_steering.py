"""Gather all steered trajectories of an experiment and their scores into one table."""

from emoprobe.stages.steering_table import tabulate
from emoprobe.workflow.steered import steering_grid
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    with exit_on():
        tabulate(steering_grid(config.model_dump_json(), None), layout)


if __name__ == "__main__":
    main()
