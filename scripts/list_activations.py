"""List where the activations of every trajectory lie, with their hashes."""

import sys

from emoprobe.results import atomic
from emoprobe.results.activation_folder import ActivationError
from emoprobe.results.manifest import manifest
from emoprobe.tasks.samples import captured_pairs
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    try:
        entries = manifest(layout, captured_pairs(config))
    except ActivationError as error:
        sys.exit(str(error))
    atomic.write_json(layout.manifest, entries.model_dump(mode="json"))


if __name__ == "__main__":
    main()
