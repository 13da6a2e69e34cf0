"""Find the features that differ between tones, the contexts in which they are active, and their directions."""

import sys

from emoprobe.models.autoencoders import AutoencoderError
from emoprobe.results.activation_folder import ActivationError
from emoprobe.stages.features.analyze import analyze_features
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    try:
        analyze_features(*experiment_arguments(__doc__))
    except (ActivationError, AutoencoderError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
