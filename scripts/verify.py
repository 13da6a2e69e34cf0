"""Check every file of an experiment: present, whole, as it was written, and of the same trajectory as the others."""

import sys

from emoprobe.conversations.samples import captured_pairs, experiment_pairs, judged_pairs
from emoprobe.results import atomic
from emoprobe.results.activation_folder import ActivationError
from emoprobe.results.verification import verify
from emoprobe.workflow.steered import steering_grid
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    steered = steering_grid(config.model_dump_json(), None).trajectories if config.steering.enabled else ()
    with exit_on(ActivationError):
        pairs, captured, asked = experiment_pairs(config), captured_pairs(config), config.asks_model
        found = verify(layout, pairs, captured, steered, outcomes=asked, judged=judged_pairs(config))
    if found.unhashed:
        print(
            f"{found.unhashed} of {found.checked} trajectories recorded no hashes: they were compared among themselves"
        )
    if found.problems:
        sys.exit("\n".join([f"{len(found.problems)} problems in {found.checked} pairs:", *found.problems]))
    atomic.write_json(layout.verified, found.values())


if __name__ == "__main__":
    main()
