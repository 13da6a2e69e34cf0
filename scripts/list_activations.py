"""List where the activations of every trajectory lie, with their hashes."""

import argparse
import sys
from pathlib import Path

from scripts.lib import atomic
from scripts.lib.activations import ActivationError, manifest
from scripts.lib.config_files import load_config
from scripts.lib.paths import Layout
from scripts.lib.trajectories import experiment_pairs


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="the experiment's configuration")
    parser.add_argument("--experiment", required=True, type=Path, help="folder of the experiment")
    arguments = parser.parse_args()
    layout = Layout(arguments.experiment)
    try:
        entries = manifest(layout, experiment_pairs(load_config(arguments.config)))
    except ActivationError as error:
        sys.exit(str(error))
    atomic.write_json(layout.manifest, entries)


if __name__ == "__main__":
    main()
