"""Write down what will be tested, before there is an answer."""

from emoprobe.stages.preregistration import write_plan
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    with exit_on():
        write_plan(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
