"""Measure how good the autoencoders of an experiment are on trajectories that they were not trained on."""

from emoprobe.models.autoencoders import AutoencoderError
from emoprobe.results.activation_folder import ActivationError
from emoprobe.stages.features.measure import measure_autoencoders
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    with exit_on(ActivationError, AutoencoderError):
        measure_autoencoders(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
