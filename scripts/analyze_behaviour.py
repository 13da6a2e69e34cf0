"""Compute what the variants did: accuracy, paired tests, the shape of the answers, agreement, workers."""

from emoprobe.stages.behaviour import analyze_behaviour
from scripts.arguments import experiment_arguments, told


def main() -> None:
    """Command line; see --help."""
    with told():
        analyze_behaviour(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
