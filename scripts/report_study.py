"""Write the page of a study, which links to the page of each experiment."""

import argparse
from pathlib import Path

from emoprobe.results.layout import Layout
from emoprobe.stages.study import report_study
from scripts.arguments import exit_on


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", required=True, type=Path, help="folder of the study")
    with exit_on():
        report_study(Layout(parser.parse_args().study))


if __name__ == "__main__":
    main()
