"""Copy activations to object storage (storage.url): what is not there yet, checked, and the manifest last."""

import sys

from emoprobe.conversations.samples import captured_pairs
from emoprobe.results.activation_folder import METADATA, ActivationError
from emoprobe.results.activations import find_pairs
from emoprobe.storage.push import push
from scripts.arguments import exit_on, stored_experiments


def main() -> None:
    """Command line; see --help."""
    for config, layout in stored_experiments(__doc__):
        if config.dataset.id is None:
            pairs = captured_pairs(config)
        else:  # the ids are in a file that need not be here
            pairs = [pair for pair in find_pairs(layout) if pair[0] in config.variants]
        pairs = [pair for pair in pairs if (layout.activations(*pair) / METADATA).exists()]
        if not pairs:
            sys.exit(f"{layout.root}: has no activations to push; run the experiment first")
        with exit_on(ActivationError):
            push(layout, pairs, config.storage)


if __name__ == "__main__":
    main()
