"""The command line that most scripts share: an experiment's configuration and its folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.results.layout import Layout


def experiment_arguments(description: str | None) -> tuple[Config, Layout]:
    """Read `--config` and `--experiment`; a configuration that cannot be used ends the program with its errors."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, help="the experiment's configuration")
    parser.add_argument("--experiment", required=True, type=Path, help="folder of the experiment")
    arguments = parser.parse_args()
    try:
        return load_config(arguments.config), Layout(arguments.experiment)
    except ConfigError as error:
        parser.exit(2, f"{error}\n")
