"""Compute what the variants did: accuracy, paired tests, the shape of the answers, agreement, workers."""

from emoprobe.analysis.labels import LabelError
from emoprobe.stages.behaviour import analyze_behaviour
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    with exit_on(LabelError):
        analyze_behaviour(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
