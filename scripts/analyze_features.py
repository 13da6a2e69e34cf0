"""Find the features that differ between tones, the contexts in which they are active, and their directions."""

from emoprobe.models.autoencoders import AutoencoderError
from emoprobe.results.activation_folder import ActivationError
from emoprobe.stages.features.analyze import analyze_features
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    with exit_on(ActivationError, AutoencoderError):
        analyze_features(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
