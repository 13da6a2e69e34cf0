"""Make the model of an experiment ready and write its card."""

import argparse
import sys
from pathlib import Path

from emoprobe.config.experiment import Config
from emoprobe.config.files import load_config
from emoprobe.config.science.capture import Capture
from emoprobe.models.source import ModelError, check_capture, prepare
from emoprobe.results import atomic


def all_foreign(config: Config) -> bool:
    """Whether only servers elsewhere need the weights: this machine's load none, and share no disk with them."""
    vllm = config.generation.backend == "vllm"
    captures = config.capture.enabled or config.features.enabled or not vllm
    vllm_here = vllm and not config.workers.endpoints
    return not vllm_here and (config.workers.captures_elsewhere or not captures)


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
        if config.capture.enabled and Path(card.path).is_dir():
            check_capture(config.capture, Path(card.path))
        if config.features.layer is not None and config.features.enabled and Path(card.path).is_dir():
            wanted = Capture(layers=[config.features.layer], hook_points=["resid_post"])
            check_capture(wanted, Path(card.path), "features: ")
    except ModelError as error:
        sys.exit(str(error))
    atomic.write_json(arguments.output, card.to_json())


if __name__ == "__main__":
    main()
