"""Write an experiment's headline numbers and the page to read."""

import argparse
from pathlib import Path

from emoprobe.report.page import report_page
from emoprobe.report.summary import report
from emoprobe.results import atomic
from emoprobe.results.layout import Layout


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True, type=Path, help="folder of the experiment")
    layout = Layout(parser.parse_args().experiment)
    found = report(layout)
    atomic.write_text(layout.report_html, report_page(layout, found))
    atomic.write_json(layout.report, found)


if __name__ == "__main__":
    main()
