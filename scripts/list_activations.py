"""List where the activations of every trajectory lie, with their hashes."""

import sys

from scripts.arguments import experiment_arguments
from scripts.lib import atomic
from scripts.lib.activations import ActivationError, manifest
from scripts.lib.trajectories import experiment_pairs


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    try:
        entries = manifest(layout, experiment_pairs(config))
    except ActivationError as error:
        sys.exit(str(error))
    atomic.write_json(layout.manifest, entries)


if __name__ == "__main__":
    main()
