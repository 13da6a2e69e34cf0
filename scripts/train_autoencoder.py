"""Train a sparse autoencoder on the tokens of an experiment; an interrupted training goes on where it was."""

import argparse

from emoprobe.results.activation_folder import ActivationError
from emoprobe.stages.features.train import train_autoencoder
from scripts.arguments import add_experiment, exit_on, read_experiment


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_experiment(parser)
    parser.add_argument("name", metavar="NAME", help="seed-1, seed-2 …")
    config, layout, arguments = read_experiment(parser)
    if arguments.name not in config.features.autoencoders:
        parser.error(f"{arguments.name} is none of {', '.join(config.features.autoencoders) or 'no autoencoders'}")
    with exit_on(ActivationError):
        train_autoencoder(config, layout, arguments.name)


if __name__ == "__main__":
    main()
