"""Make the model of an experiment ready and write its card."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.config.judge_server import about_judge, judge_server
from emoprobe.config.science.capture import RESID_POST, Capture
from emoprobe.conversations.rendering import PromptError, Renderer
from emoprobe.conversations.variants import VariantError
from emoprobe.models.directory import ModelError
from emoprobe.models.placement import PlacementError
from emoprobe.models.resolved import memory_warning, resolve, with_values
from emoprobe.models.server_hardware import ServerHardware
from emoprobe.models.source import EMBEDDED, ModelCard, check_capture, named_model, prepare, tokenizer_directory
from emoprobe.results import atomic
from emoprobe.workflow.prompt_checks import check_prompts, same_prompts, thinking_warnings
from emoprobe.workflow.tool_checks import check_tools


def all_foreign(config: Config) -> bool:
    """Return whether only servers elsewhere need the weights: this machine's load none, and share no disk with them."""
    vllm_here = "vllm" in config.server_kinds and not config.workers.endpoints
    return not vllm_here and (config.workers.captures_elsewhere or "nnsight" not in config.server_kinds)


def surely_fits(config: Config) -> bool:
    """Return whether the embedded model is captured with the default settings, which need no slow check."""
    default, settings = Capture(), config.capture
    return config.model.source == EMBEDDED and (
        (settings.layers, settings.hook_points) == (default.layers, default.hook_points)
    )


def with_tokenizer(config: Config, card: ModelCard) -> ModelCard:
    """Check the experiment's prompts, and choose the library that tokenizes them.

    The fast library reads the tokenizer's file alone. Where transformers makes other prompts of the same files, it is
    used instead, as the model was trained with what it makes.

    Raises:
        ModelError: a prompt cannot be made, is not what the experiment is about, or shows no tools; one line a problem.
    """
    directory = tokenizer_directory(card)
    try:
        renderer = Renderer.load(directory)
        if config.model.source != EMBEDDED:
            reference = Renderer.load(directory, "transformers")
            if not same_prompts(config, renderer, reference):
                renderer, card = reference, replace(card, tokenizer="transformers")
    except VariantError:
        pass  # a transform that fails on made-up questions is left to the run
    except PromptError:  # a template that refuses the messages, which the check explains
        pass
    if problems := check_prompts(config, renderer):
        raise ModelError("\n".join(problems))
    if problems := check_tools(config, renderer):
        raise ModelError("\n".join(problems))
    for line in thinking_warnings(config, renderer):
        print(line, file=sys.stderr)
    return card


def with_resolved(config: Config, card: ModelCard, root: Path) -> ModelCard:
    """Decide what each `auto` of the configuration is, once for the results in a folder.

    Where only the card was lost, the values that the metadata keep are taken again.

    Raises:
        PlacementError: the model does not fit into the memory of the servers' hardware.
    """
    directory = tokenizer_directory(card)
    values = resolve(config, directory, ServerHardware.of(config))
    try:
        described = json.loads((root / "metadata.json").read_text(encoding="utf-8"))["model"]
        kept = described["resolved"] if described["sha256"] == card.sha256 else {}
    except (OSError, ValueError, KeyError, TypeError):
        kept = {}
    resolved = {key: kept.get(key, value) for key, value in values.items()}
    if config.model.source != EMBEDDED:
        warning = memory_warning(config, directory, str(with_values(config, resolved).model.dtype))
        if warning is not None:
            print(warning, file=sys.stderr)
    return replace(card, resolved=resolved or None)


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="the experiment's configuration")
    parser.add_argument("--cache", required=True, type=Path, help="folder for converted models")
    parser.add_argument("--output", required=True, type=Path, help="model.json")
    parser.add_argument("--judge", help="label of a judge, whose model is prepared instead")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    named: Callable[[str], str] = str
    if arguments.judge is not None:
        (judge,) = [each for each in config.judges if each.outcome == arguments.judge]
        config, named = judge_server(config, judge), partial(about_judge, judge)
    if config.generation.backend == "api":
        atomic.write_json(arguments.output, named_model(config.model).to_json())
        return
    try:
        card = prepare(config.model, arguments.cache, weights=not all_foreign(config))
        if arguments.judge is None:  # the prompts of a judge are not known yet
            card = with_tokenizer(config, card)
        card = with_resolved(config, card, arguments.output.parent)
        if config.capture.enabled and Path(card.path).is_dir() and not surely_fits(config):
            check_capture(config.capture, Path(card.path))
        if config.features.layer is not None and config.features.enabled and Path(card.path).is_dir():
            wanted = Capture(layers=[config.features.layer], hook_points=[RESID_POST])
            check_capture(wanted, Path(card.path), "features: ")
    except (ModelError, PlacementError) as error:
        sys.exit(named(str(error)))
    atomic.write_json(arguments.output, card.to_json())


if __name__ == "__main__":
    main()
