"""Write an experiment's headline numbers and the page to read."""

from emoprobe.stages.report import write_report
from scripts.arguments import experiment_arguments, told


def main() -> None:
    """Command line; see --help."""
    with told():
        write_report(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
