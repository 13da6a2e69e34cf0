"""Fetch activations that are in object storage (storage.url) and not here, each checked."""

import sys

from emoprobe.results.activation_folder import ActivationError
from emoprobe.storage.pull import pull
from scripts.arguments import stored_experiments


def main() -> None:
    """Command line; see --help."""
    for config, layout in stored_experiments(__doc__):
        try:
            pull(layout, config.storage)
        except ActivationError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
