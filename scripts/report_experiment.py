"""Write an experiment's headline numbers and the page to read."""

from emoprobe.report.page import experiment_page
from emoprobe.report.summary import report
from emoprobe.results import atomic
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    _, layout = experiment_arguments(__doc__)
    found = report(layout)
    atomic.write_text(layout.report_html, experiment_page(layout, found))
    atomic.write_json(layout.report, found)


if __name__ == "__main__":
    main()
