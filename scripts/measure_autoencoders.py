"""Measure how good the autoencoders of an experiment are on trajectories that they were not trained on."""

import sys

from emoprobe.models.autoencoders import AutoencoderError
from emoprobe.results.activation_folder import ActivationError
from emoprobe.stages.features.measure import measure_autoencoders
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    try:
        measure_autoencoders(*experiment_arguments(__doc__))
    except (ActivationError, AutoencoderError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
