"""Gather all steered trajectories of an experiment and their scores into one table."""

import sys

from emoprobe.results.record import DamagedError
from emoprobe.stages.steering_table import tabulate
from emoprobe.workflow.steered import steering_plan
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    try:
        tabulate(steering_plan(config.model_dump_json(), None), layout)
    except DamagedError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
