"""Write an experiment's resolved config and everything else that is needed to run it again."""

from pathlib import Path

import yaml

from scripts.arguments import experiment_arguments
from scripts.lib import atomic
from scripts.lib.models import ModelCard
from scripts.lib.provenance import experiment_metadata


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    card = ModelCard.read(layout.model)
    atomic.write_json(layout.metadata, experiment_metadata(config, card, Path(__file__).parents[1]))
    atomic.write_json(layout.resolved_json, config.resolved())
    text = yaml.safe_dump(config.resolved(), sort_keys=False, allow_unicode=True, width=100)
    atomic.write_text(layout.resolved_yaml, text)


if __name__ == "__main__":
    main()
