"""Fit linear probes on the activations of an experiment, and find the directions of its variants."""

from emoprobe.analysis.probes.all_probes import use_large_pages
from emoprobe.results.activation_folder import ActivationError
from emoprobe.stages.probes import probe
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    use_large_pages()
    with exit_on(ActivationError):
        probe(*experiment_arguments(__doc__))


if __name__ == "__main__":
    main()
