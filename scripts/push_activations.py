"""Copy activations to object storage (storage.url): what is not there yet, checked, and the manifest last."""

import sys

from emoprobe.conversations.samples import captured_pairs
from emoprobe.results.activation_folder import METADATA, ActivationError
from emoprobe.storage.push import push
from scripts.arguments import exit_on, stored_experiments


def main() -> None:
    """Command line; see --help."""
    for config, layout in stored_experiments(__doc__):
        pairs = [pair for pair in captured_pairs(config) if (layout.activations(*pair) / METADATA).exists()]
        if not pairs:
            sys.exit(f"{layout.root}: has no activations to push; run the experiment first")
        with exit_on(ActivationError):
            push(layout, pairs, config.storage)


if __name__ == "__main__":
    main()
