"""List where the activations of every trajectory lie, with their hashes."""

from emoprobe.conversations.samples import captured_pairs
from emoprobe.results import atomic
from emoprobe.results.activation_folder import ActivationError
from emoprobe.results.manifest import manifest
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    with exit_on(ActivationError):
        entries = manifest(layout, captured_pairs(config))
    atomic.write_json(layout.manifest, entries.model_dump(mode="json"))


if __name__ == "__main__":
    main()
