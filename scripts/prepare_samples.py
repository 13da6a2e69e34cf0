"""Draw the samples of an experiment: one file a question."""

import argparse
import sys
from pathlib import Path

from scripts.lib import atomic
from scripts.lib.config import load_config
from scripts.lib.samples import DataError, draw


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="the experiment's configuration")
    parser.add_argument("--output", required=True, type=Path, help="folder of the samples")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    try:
        samples = list(draw(config.dataset, config.experiment.seed))
    except DataError as error:
        sys.exit(str(error))
    for sample in samples:
        atomic.write_json(arguments.output / f"{sample.sample_id}.json", sample.to_json())


if __name__ == "__main__":
    main()
