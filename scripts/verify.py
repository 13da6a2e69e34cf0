"""Check every trajectory and activation folder of an experiment: present, readable, whole, and of the same tokens."""

import argparse
import sys
from pathlib import Path

from scripts.lib import atomic
from scripts.lib.config_files import load_config
from scripts.lib.paths import Layout
from scripts.lib.trajectories import experiment_pairs
from scripts.lib.verification import verify


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="the experiment's configuration")
    parser.add_argument("--experiment", required=True, type=Path, help="folder of the experiment")
    arguments = parser.parse_args()
    config, layout = load_config(arguments.config), Layout(arguments.experiment)
    found = verify(layout, experiment_pairs(config), captured=config.capture.enabled)
    if found["problems"]:
        sys.exit("\n".join([f"{len(found['problems'])} problems in {found['checked']} pairs:", *found["problems"]]))
    atomic.write_json(layout.verified, found)


if __name__ == "__main__":
    main()
