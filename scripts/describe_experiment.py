"""Write an experiment's resolved config and everything else that is needed to run it again."""

from pathlib import Path

from emoprobe.config.reading import to_yaml
from emoprobe.models.source import ModelCard
from emoprobe.results import atomic
from emoprobe.workflow.provenance import experiment_metadata
from scripts.arguments import experiment_arguments, told


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    with told():
        card = ModelCard.read(layout.model)
    atomic.write_json(layout.metadata, experiment_metadata(config, card, Path(__file__).parents[1]))
    atomic.write_json(layout.resolved_json, config.resolved())
    atomic.write_text(layout.resolved_yaml, to_yaml(config.resolved()))


if __name__ == "__main__":
    main()
