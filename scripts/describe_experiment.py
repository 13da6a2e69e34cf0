"""Write an experiment's resolved config and everything else that is needed to run it again."""

from pathlib import Path

from emoprobe.config.reading import to_yaml
from emoprobe.conversations.rendering import Renderer
from emoprobe.models.source import ModelCard, is_missing, tokenizer_directory
from emoprobe.results import atomic
from emoprobe.workflow.prompt_checks import describe_prompt
from emoprobe.workflow.provenance import experiment_metadata
from scripts.arguments import exit_on, experiment_arguments


def main() -> None:
    """Command line; see --help."""
    config, layout = experiment_arguments(__doc__)
    with exit_on():
        card = ModelCard.read(layout.model)
    prompt = None
    # An experiment whose model has moved or been removed is described without its prompts: no answer needs it. What an
    # API makes of messages is not known.
    if config.generation.backend != "api" and not is_missing(card):
        prompt = describe_prompt(config, Renderer.load(tokenizer_directory(card), card.tokenizer))
    atomic.write_json(layout.metadata, experiment_metadata(config, card, Path(__file__).parents[1], prompt))
    atomic.write_json(layout.resolved_json, config.resolved())
    atomic.write_text(layout.resolved_yaml, to_yaml(config.resolved()))


if __name__ == "__main__":
    main()
