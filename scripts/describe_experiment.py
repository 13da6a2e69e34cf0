"""Write an experiment's resolved config and everything else that is needed to run it again."""

import argparse
from pathlib import Path

import yaml

from scripts.lib import atomic
from scripts.lib.config_files import load_config
from scripts.lib.models import ModelCard
from scripts.lib.paths import Layout
from scripts.lib.provenance import experiment_metadata


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="the experiment's configuration")
    parser.add_argument("--experiment", required=True, type=Path, help="folder of the experiment")
    arguments = parser.parse_args()
    config, layout = load_config(arguments.config), Layout(arguments.experiment)
    card = ModelCard.read(layout.model)
    atomic.write_json(layout.metadata, experiment_metadata(config, card, Path(__file__).parents[1]))
    atomic.write_json(layout.resolved_json, config.resolved())
    text = yaml.safe_dump(config.resolved(), sort_keys=False, allow_unicode=True, width=100)
    atomic.write_text(layout.resolved_yaml, text)


if __name__ == "__main__":
    main()
