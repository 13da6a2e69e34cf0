"""Write an experiment's explorer: every conversation, to read offline in a browser."""

from emoprobe.stages.explorer import write_explorer
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    with exit_on():
        write_explorer(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
