"""The command line that most scripts share: an experiment's configuration and its folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.results.layout import Layout


def add_experiment(parser: argparse.ArgumentParser) -> None:
    """Add `--config` and `--experiment`."""
    parser.add_argument("--config", required=True, help="the experiment's configuration")
    parser.add_argument("--experiment", required=True, type=Path, help="folder of the experiment")


def read_experiment(parser: argparse.ArgumentParser) -> tuple[Config, Layout, argparse.Namespace]:
    """Read the command line; a configuration that cannot be used ends the program with its errors."""
    arguments = parser.parse_args()
    try:
        return load_config(arguments.config), Layout(arguments.experiment), arguments
    except ConfigError as error:
        parser.exit(2, f"{error}\n")


def experiment_arguments(description: str | None) -> tuple[Config, Layout]:
    """The configuration and folder of an experiment, for a script that takes nothing else."""
    parser = argparse.ArgumentParser(description=description)
    add_experiment(parser)
    config, layout, _ = read_experiment(parser)
    return config, layout
