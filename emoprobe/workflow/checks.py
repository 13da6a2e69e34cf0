"""What a plan can find wrong with a configuration: everything that shows without computing or downloading anything.

Validation of single keys is the configuration's own; here they meet the files, packages and variants that they name.
"""

from __future__ import annotations

import difflib
import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from emoprobe.analysis.contrasts import contrasts_of, references_of
from emoprobe.config.errors import ConfigError, lines_by_experiment
from emoprobe.config.experiment import Config
from emoprobe.config.science.capture import Capture
from emoprobe.config.science.dataset import Dataset
from emoprobe.config.science.model import Model
from emoprobe.config.study import Study
from emoprobe.conversations.rendering import PromptError, Renderer
from emoprobe.models import autoencoders
from emoprobe.models import source as models
from emoprobe.models.depth import layer_count, stream_width
from emoprobe.models.source import ModelError
from emoprobe.models.weights import shapes
from emoprobe.results.layout import MODELS
from emoprobe.tasks import variants
from emoprobe.tasks.sources import check_source, files, reasoning_gym
from emoprobe.tasks.variants import VariantError, load_transform, variant_texts
from emoprobe.workflow.prompt_checks import check_prompts
from emoprobe.workflow.remembered import remembered, version
from emoprobe.workflow.steering_checks import check_steering


def check_config(config: Config, cache: Path | None = None, converted: Path = MODELS) -> list[str]:
    """Everything that can be found wrong at once, one line a problem: `section.key = value: what is wrong, what to do`.

    Args:
        config: the experiment; relative paths are taken from the working directory.
        cache: folder in which the answers of slow checks are remembered as long as nothing changes.
        converted: folder with the embedded model, where it was converted already.
    """
    found = [
        *_data(config.dataset, config.experiment.seed, cache),
        *_variants(config),
        *_model(config, cache, converted),
        *_features(config, converted),
        *_endpoints(config),
        *_storage(config),
        *_slurm(config),
    ]
    # Data that cannot be read would be told twice.
    return found or check_steering(config, cache)


def check_study(study: Study, cache: Path | None = None, converted: Path = MODELS) -> None:
    """Check every experiment of a plan, see `check_config`.

    Raises:
        ConfigError: with one line for each problem, which names the experiments that have it where there are several.
    """
    problems: dict[str, list[str]] = {}
    for name, config in study.configs.items():
        for line in check_config(config, cache, converted):
            problems.setdefault(line, []).append(name)
    if problems:
        raise ConfigError(lines_by_experiment(problems, several=len(study.configs) > 1))


def _data(dataset: Dataset, seed: int, cache: Path | None) -> Iterator[str]:
    task = reasoning_gym.matches(dataset.source)
    if dataset.arguments and not task:
        yield f"dataset.arguments = {dataset.arguments}: only the tasks of reasoning_gym take arguments; remove the key"
    if dataset.choices is not None and task:
        yield f"dataset.choices = {dataset.choices!r}: the tasks of reasoning_gym have no options; remove the key"
    path = Path(dataset.source).expanduser()
    if task and dataset.source == reasoning_gym.SHORT_NAME and not dataset.arguments:
        return  # the default, which needs no second to find that it is there
    if task:
        about: list[Any] = [dataset.model_dump(mode="json"), seed, version("reasoning-gym")]
        yield from remembered(cache, about, lambda: check_source(dataset, seed))
    elif path.suffix == ".parquet" and files.is_file(dataset.source) and path.is_file():
        status = path.stat()
        about = [dataset.model_dump(mode="json"), str(path.absolute()), status.st_size, status.st_mtime_ns]
        yield from remembered(cache, about, lambda: check_source(dataset, seed))
    else:
        yield from check_source(dataset, seed)


def _variants(config: Config) -> Iterator[str]:
    for name, variant in config.variants.items():
        try:
            if variant.transform is not None:
                load_transform(name, variant.transform)
            variant_texts(config, name)
        except VariantError as error:
            yield str(error)


def _model(config: Config, cache: Path | None, converted: Path) -> Iterator[str]:
    directory = _directory(config.model, converted)
    if directory is None:
        return
    if models.is_local(config.model.source):
        try:
            models.check_directory(directory)
        except ModelError as error:
            yield str(error)
            return
    yield from _prompts(config, cache, directory)
    if config.capture.enabled:
        yield from _layers(config.capture, directory)
        yield from _hook_points(config.capture, directory)


def _prompts(config: Config, cache: Path | None, directory: Path) -> Iterator[str]:
    """Check what the chat template makes of the messages; without a fast tokenizer, `prepare_model` checks it."""
    if not (directory / "tokenizer.json").is_file():
        return
    files = [path for path in sorted(directory.iterdir()) if path.suffix in (".json", ".jinja")]
    about: list[Any] = [
        version("tokenizers"),
        [[str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns] for path in files],
        [config.prompt.content(), config.generation.chat_template, config.experiment.seed],
        {name: variants.identity(config, name) for name in config.variants},
    ]

    def ask() -> list[str]:
        try:
            return check_prompts(config, Renderer.load(directory))
        except PromptError as error:
            return [f"model.source = {config.model.source!r}: {error}"]

    yield from remembered(cache, about, ask)


def _features(config: Config, converted: Path) -> Iterator[str]:
    features, settings = config.features, config.features.autoencoder
    if not features.enabled or features.layer is None:
        return
    references = references_of(list(config.variants), config.analysis.references)
    if not any(contrast.primary for contrast in contrasts_of(list(config.variants), references)):
        yield "features.enabled = true: features are compared between tones and their reference; add a tone"
    directory = _directory(config.model, converted)
    count = None if directory is None else layer_count(directory)
    if count is not None and not -count <= features.layer < count:
        yield f"features.layer = {features.layer}: the model in {directory} has {count} layers, 0 to {count - 1}"
    if settings.source is None or not models.is_local(settings.source):
        return
    try:
        width = autoencoders.input_width(autoencoders.local_folder(settings))
    except autoencoders.AutoencoderError as error:
        yield str(error)
        return
    own = None if directory is None else stream_width(directory)
    if own is not None and width != own:
        yield (
            f"features.autoencoder.source = {settings.source!r}: reads {width} values, and the model in {directory} "
            f"has {own}: it is another model's"
        )


def _directory(model: Model, converted: Path) -> Path | None:
    """Where a model lies, if it is on this machine's disk and not in the cache of the hub."""
    if models.is_local(model.source):
        return Path(model.source).expanduser()
    directory = converted / models.EMBEDDED
    return directory if model.source == models.EMBEDDED and (directory / "config.json").is_file() else None


def _layers(capture: Capture, directory: Path) -> Iterator[str]:
    count = layer_count(directory)
    if count is None or capture.layers == "all":
        return
    for layer in capture.layers:
        if not -count <= layer < count:
            yield f"capture.layers = {layer}: the model in {directory} has {count} layers, 0 to {count - 1}"


def _hook_points(capture: Capture, directory: Path) -> Iterator[str]:
    """Slips in the names of modules, by the names of the weights.

    Weights do not tell of every module, so that a name is refused here only if it nearly is another; the rest is
    checked when the model is prepared.
    """
    known = _weighted_modules(directory)
    for point in capture.hook_points:
        module = point.rpartition(".")[0]
        near = difflib.get_close_matches(module, known, n=1, cutoff=0.8) if module not in known else []
        if module and near:
            yield f"capture.hook_points = {point!r}: the model's layers have no {module}; did you mean {near[0]}?"


def _weighted_modules(directory: Path) -> set[str]:
    """Paths of the modules of a decoder layer that hold weights, or lie around one that does."""
    index = directory / "model.safetensors.index.json"
    try:
        if index.is_file():
            names = list(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
        else:
            names = [name for path in directory.glob("*.safetensors") for name in shapes(path)]
    except (OSError, ValueError, KeyError):
        return set()
    found: set[str] = set()
    for name in names:
        before, _, inside = name.partition(".0.")
        if inside and not before.endswith("experts"):
            steps = inside.split(".")[:-1]
            found |= {".".join(steps[:end]) for end in range(1, len(steps) + 1)}
    return found


def _endpoints(config: Config) -> Iterator[str]:
    file = config.workers.api_key_file
    if file is not None:
        try:
            if Path(file).stat().st_mode & 0o077:
                yield f"workers.api_key_file = {file!r}: others may read it; run chmod 600"
        except OSError as error:
            yield f"workers.api_key_file = {file!r}: {error.strerror}"
    for key in ("endpoints", "capture_endpoints"):
        for url in getattr(config.workers, key):
            try:
                _ = urlsplit(url).port
            except ValueError as error:
                yield f"workers.{key} = {url!r}: is no URL of a server ({error})"


def _storage(config: Config) -> Iterator[str]:
    if config.pushes and find_spec("obstore") is None:
        yield f"storage.url = {config.storage.url!r}: object storage needs obstore; pip install 'emoprobe[storage]'"


def _slurm(config: Config) -> Iterator[str]:
    if not config.workers.slurm:
        return
    if shutil.which("sbatch") is None:
        yield "workers.slurm: sbatch is not on the path; run where SLURM's commands are, or remove the key"
    wanted = config.generation.engine.tensor_parallel
    for number, shape in enumerate(config.workers.slurm):
        if wanted > 1 and shape.gpus < wanted:
            yield f"workers.slurm.{number}.gres = {shape.gres!r}: generation.engine.tensor_parallel needs {wanted} GPUs"
