"""Fit linear probes on the activations of an experiment, and find the directions of its variants."""

from emoprobe.results.activation_folder import ActivationError
from emoprobe.stages.probes import probe
from scripts.arguments import experiment_arguments, told


def main() -> None:
    """Command line; see --help."""
    with told(ActivationError):
        probe(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
