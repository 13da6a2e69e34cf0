"""Write the page of a study, which links to the page of each experiment."""

import argparse
from pathlib import Path

from emoprobe.pipeline import report_study
from emoprobe.results.layout import Layout


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--study", required=True, type=Path, help="folder of the study")
    report_study(Layout(parser.parse_args().study))


if __name__ == "__main__":
    main()
