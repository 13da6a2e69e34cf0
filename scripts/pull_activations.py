"""Fetch activations that are in object storage (storage.url) and not here, each checked."""

from emoprobe.results.activation_folder import ActivationError
from emoprobe.storage.pull import pull
from scripts.arguments import exit_on, stored_experiments


def main() -> None:
    """Command line; see --help."""
    for config, layout in stored_experiments(__doc__):
        with exit_on(ActivationError):
            pull(layout, config.storage)


if __name__ == "__main__":
    main()
