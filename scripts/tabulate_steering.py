"""Gather all steered trajectories of an experiment and their scores into one table."""

from emoprobe.stages.steering_table import tabulate
from emoprobe.workflow.steered import steering_grid
from scripts.arguments import experiment_arguments, told


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    with told():
        tabulate(steering_grid(config.model_dump_json(), None), layout)


if __name__ == "__main__":
    main()
