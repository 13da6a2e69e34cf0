"""Compute what steering did: each dose beside random directions, a test of each direction, what ablation takes away."""

from emoprobe.stages.steering import analyze_steering
from scripts.arguments import experiment_arguments, told


def main() -> None:
    """Command line; see --help."""
    with told():
        analyze_steering(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
