"""Check every trajectory and activation folder of an experiment: present, readable, whole, and of the same tokens."""

import sys

from emoprobe.results import atomic
from emoprobe.results.activation_folder import ActivationError
from emoprobe.results.verification import verify
from emoprobe.tasks.samples import captured_pairs, experiment_pairs
from scripts.arguments import experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    try:
        found = verify(layout, experiment_pairs(config), captured_pairs(config))
    except ActivationError as error:
        sys.exit(str(error))
    if found.problems:
        sys.exit("\n".join([f"{len(found.problems)} problems in {found.checked} pairs:", *found.problems]))
    atomic.write_json(layout.verified, found.values())


if __name__ == "__main__":
    main()
