"""Compute what steering did: each dose beside random directions, a test of each direction, what ablation takes away."""

from emoprobe.stages.steering import analyze_steering
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    with exit_on():
        analyze_steering(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
