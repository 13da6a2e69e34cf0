"""Make the model of an experiment ready and write its card."""

import argparse
import sys
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.config.science.capture import Capture
from emoprobe.models.source import EMBEDDED, ModelError, check_capture, prepare
from emoprobe.results import atomic


def all_foreign(config: Config) -> bool:
    """Whether only servers elsewhere need the weights: this machine's load none, and share no disk with them."""
    vllm_here = "vllm" in config.server_kinds and not config.workers.endpoints
    return not vllm_here and (config.workers.captures_elsewhere or "nnsight" not in config.server_kinds)


def surely_fits(config: Config) -> bool:
    """Whether the default settings are captured from the embedded model: looking takes as long as its conversion."""
    default, settings = Capture(), config.capture
    return config.model.source == EMBEDDED and (
        (settings.layers, settings.hook_points) == (default.layers, default.hook_points)
    )


def main() -> None:
    """Command line; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="the experiment's configuration")
    parser.add_argument("--cache", required=True, type=Path, help="folder for converted models")
    parser.add_argument("--output", required=True, type=Path, help="model.json")
    arguments = parser.parse_args()
    config = load_config(arguments.config)
    try:
        card = prepare(config.model, arguments.cache, weights=not all_foreign(config))
        if config.capture.enabled and Path(card.path).is_dir() and not surely_fits(config):
            check_capture(config.capture, Path(card.path))
        if config.features.layer is not None and config.features.enabled and Path(card.path).is_dir():
            wanted = Capture(layers=[config.features.layer], hook_points=["resid_post"])
            check_capture(wanted, Path(card.path), "features: ")
    except ModelError as error:
        sys.exit(str(error))
    atomic.write_json(arguments.output, card.to_json())


if __name__ == "__main__":
    main()
