"""Write down what will be tested, before there is an answer."""

from emoprobe.stages.preregistration import write_plan
from scripts.arguments import experiment_arguments, told


def main() -> None:
    """Command line; see --help."""
    with told():
        write_plan(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
