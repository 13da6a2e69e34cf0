"""Write an experiment's headline numbers and the page to read."""

import argparse
from pathlib import Path

from scripts.lib import atomic
from scripts.lib.paths import Layout
from scripts.lib.report_page import report_page
from scripts.lib.summary import report


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
