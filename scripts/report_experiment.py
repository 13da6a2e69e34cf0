"""Write an experiment's headline numbers."""

import argparse
from pathlib import Path

from scripts.lib import atomic
from scripts.lib.paths import Layout
from scripts.lib.summary import report


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", required=True, type=Path, help="folder of the experiment")
    layout = Layout(parser.parse_args().experiment)
    atomic.write_json(layout.report, report(layout))


if __name__ == "__main__":
    main()
