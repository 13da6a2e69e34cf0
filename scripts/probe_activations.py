"""Fit linear probes on the activations of an experiment, and find the directions of its variants."""

import sys

from emoprobe.results.activation_folder import ActivationError
from emoprobe.stages.probes import probe
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    try:
        probe(*experiment_arguments(__doc__))
    except ActivationError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
