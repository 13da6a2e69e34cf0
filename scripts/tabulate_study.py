"""Gather the tables of all experiments of a study, with a correction over all of them."""

import argparse
from pathlib import Path

from emoprobe.config.files import load_config
from emoprobe.results.layout import Layout
from emoprobe.stages.study_table import tabulate_study
from scripts.arguments import exit_on


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plan", required=True, type=Path, help="folder with the config of each experiment")
    parser.add_argument("--results", required=True, type=Path, help="folder in which the experiments' folders lie")
    parser.add_argument("--study", required=True, help="name of the study")
    parser.add_argument("experiments", nargs="+", metavar="EXPERIMENT", help="in the order of the tables")
    arguments = parser.parse_args()
    configs = {name: load_config(arguments.plan / f"{name}.json") for name in arguments.experiments}
    with exit_on():
        tabulate_study(configs, arguments.results, Layout.of(arguments.study, arguments.results))


if __name__ == "__main__":
    main()
