"""Write an experiment's headline numbers and the page to read."""

from emoprobe.stages.report import write_report
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    with exit_on():
        write_report(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
