"""The command line that most scripts share: an experiment's configuration and its folder."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emoprobe.config.errors import ConfigError
from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config, load_study, parse_config
from emoprobe.results.layout import Layout
from emoprobe.results.record import DamagedError


@contextmanager
def exit_on(*errors: type[Exception]) -> Iterator[None]:
    """End the program with the message of an error that a person is meant to read: a damaged file, or these types."""
    meant: tuple[type[Exception], ...] = (DamagedError, *errors)
    try:
        yield
    except meant as error:
        sys.exit(str(error))


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


def stored_experiments(description: str | None) -> list[tuple[Config, Layout]]:
    """The experiments of a script that copies activations: one, or all of a file, where they lie by default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", required=True, help="the configuration of an experiment or study")
    parser.add_argument("--experiment", type=Path, help="folder of the one experiment (default: below results/)")
    parser.add_argument("--url", help="use this instead of the configuration's storage.url")
    arguments = parser.parse_args()
    try:
        if arguments.experiment is not None:
            found = [(load_config(arguments.config), Layout(arguments.experiment))]
        else:
            study = load_study(arguments.config)
            found = [(config, Layout.of(name)) for name, config in study.configs.items() if config.capture.enabled]
        if arguments.url is not None:
            found = [(_with_url(config, arguments.url), layout) for config, layout in found]
    except ConfigError as error:
        parser.exit(2, f"{error}\n")
    if not all(config.storage.url for config, _ in found):
        parser.exit(2, "storage.url is not set: say in the configuration, or with --url, where the activations go\n")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    return found


def _with_url(config: Config, url: str) -> Config:
    values = config.resolved()
    return parse_config({**values, "storage": {**values["storage"], "url": url}}, "--url")
