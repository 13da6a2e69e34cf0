"""Configuration checks that run before any job, without computing or downloading anything.

Validation of single keys is the configuration's own; here they meet the files, packages and variants that they name.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from emoprobe import __version__
from emoprobe.analysis.contrasts import contrasts_of
from emoprobe.config.errors import ConfigError, lines_by_experiment
from emoprobe.config.experiment import Config
from emoprobe.config.files import Study
from emoprobe.config.judge_server import about_judge, judge_server
from emoprobe.config.science.analysis import references_of
from emoprobe.config.science.dataset import Dataset
from emoprobe.config.science.graders import ScorerGrader, label_of
from emoprobe.config.science.outcome_grader import OutcomeGrader
from emoprobe.config.section import is_local
from emoprobe.conversations.kinds import RuleError, check_rules
from emoprobe.conversations.sources import DataError, check_source, files, kind_of, reasoning_gym
from emoprobe.conversations.sources.data_source import is_here
from emoprobe.conversations.variants import (
    VariantError,
    begins_answer,
    begun_twice,
    load_transform,
    prefill_of,
    variant_texts,
)
from emoprobe.extras import how_to_install
from emoprobe.functions import load_function
from emoprobe.graders.registry import GraderError
from emoprobe.models import autoencoders
from emoprobe.models.directory import ModelError, check_directory
from emoprobe.models.settings import layer_count, stream_width
from emoprobe.models.source import check_source as check_model_source
from emoprobe.results.layout import MODELS
from emoprobe.workflow.gpu_checks import check_placement
from emoprobe.workflow.heavy_checks import MOST_ROWS, ask, row_problems, unless_unanswered
from emoprobe.workflow.model_checks import check_model, directory_of
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
        *_graders(config),
        *_conversation(config),
        *check_model(config, cache, converted),
        *_judge_models(config, converted),
        *_features(config, converted),
        *_endpoints(config),
        *_storage(config),
        *_slurm(config),
    ]
    # Data that cannot be read would be told twice.
    if found:
        return found
    crowded = check_placement(config, cache, converted)
    for judge in config.served_judges:
        lines = check_placement(judge_server(config, judge), cache, converted)
        crowded += [about_judge(judge, line) for line in lines]
    return [*crowded, *check_steering(config, cache)]


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
    if task and dataset.source == reasoning_gym.SHORT_NAME and not dataset.arguments:
        return  # the default, which needs no second to find that it is there
    about: list[Any] = [dataset.model_dump(mode="json"), seed, __version__]
    if task:
        about.append(version("reasoning-gym"))
        yield from remembered(cache, about, lambda: check_source(dataset, seed) or _task_rows(dataset, seed))
        return
    try:
        local = kind_of(dataset.source).paths(dataset.source)
        about.append([[str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns] for path in local])
    except (DataError, OSError):
        local = []
    if local:
        yield from unless_unanswered(cache, about, lambda: check_source(dataset, seed) or _rows(dataset, seed))
    else:
        yield from check_source(dataset, seed)


def _rows(dataset: Dataset, seed: int) -> list[str]:
    """Every row that is drawn from local files: whether it has a question, and an answer that can be graded."""
    plain = dataset.model_dump(mode="json")
    # A directory is read by `datasets`, which a plan does without.
    return row_problems(plain, seed) if files.is_file(dataset.source) else ask("rows", plain, seed)


def _task_rows(dataset: Dataset, seed: int) -> list[str]:
    """The rows of a task, of which a long draw brings no other kinds."""
    first = dataset.model_copy(update={"samples": min(dataset.samples, MOST_ROWS)})
    return row_problems(first.model_dump(mode="json"), seed)


def _conversation(config: Config) -> Iterator[str]:
    try:
        check_rules(config)
    except RuleError as error:
        yield str(error)


def _variants(config: Config) -> Iterator[str]:
    for name, variant in config.variants.items():
        try:
            if variant.transform is not None:
                load_transform(name, variant.transform)
            variant_texts(config, name)
            if variant.transform is not None and prefill_of(config, name) is not None and begins_answer(config, name):
                yield begun_twice(config, name)
        except VariantError as error:
            yield str(error)


def _graders(config: Config) -> Iterator[str]:
    for entry in config.graders:
        reference = entry.reference if isinstance(entry, OutcomeGrader) else None
        # Scorers are slow to import, and installed: that their package is there is enough.
        if reference is None or (isinstance(entry, ScorerGrader) and find_spec(reference.partition(".")[0])):
            continue
        try:
            load_function(f"graders.{label_of(entry)}", reference, GraderError)
        except GraderError as error:
            yield str(error)


def _judge_models(config: Config, converted: Path) -> Iterator[str]:
    for judge in config.served_judges:
        model = judge_server(config, judge).model
        try:
            check_model_source(model.source)
            directory = directory_of(model, converted)
            if directory is not None and is_local(model.source):
                check_directory(directory)
        except ModelError as error:
            yield about_judge(judge, str(error))


def _features(config: Config, converted: Path) -> Iterator[str]:
    features, settings = config.features, config.features.autoencoder
    if not features.enabled or features.layer is None:
        return
    references = references_of(list(config.variants), config.analysis.references)
    if not any(contrast.primary for contrast in contrasts_of(list(config.variants), references)):
        yield "features.enabled = true: features are compared between tones and their reference; add a tone"
    directory = directory_of(config.model, converted)
    count = None if directory is None else layer_count(directory)
    if count is not None and not -count <= features.layer < count:
        yield f"features.layer = {features.layer}: the model in {directory} has {count} layers, 0 to {count - 1}"
    if settings.source is None:
        return
    if is_here(settings.source):
        yield (
            f"features.autoencoder.source = {settings.source!r}: is here, and an id of the hub otherwise; write "
            f"./{settings.source}, or rename it"
        )
    if not is_local(settings.source):
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


def _endpoints(config: Config) -> Iterator[str]:
    file = config.workers.api_key_file
    if file is not None:
        try:
            if Path(file).stat().st_mode & 0o077:
                yield f"workers.api_key_file = {file!r}: others may read it; run chmod 600"
        except (OSError, ValueError) as error:  # not repeated: it may be the key itself
            reason = getattr(error, "strerror", None) or "is no path"
            yield f"workers.api_key_file: {reason}; write the path of a file that holds the key"
    named = {f"workers.{key}": getattr(config.workers, key) for key in ("endpoints", "capture_endpoints")}
    named |= {f"graders.{judge.outcome}.endpoints": judge.endpoints for judge in config.judges}
    for key, urls in named.items():
        for url in urls:
            try:
                _ = urlsplit(url).port
            except ValueError as error:
                yield f"{key} = {url!r}: is no URL of a server ({error})"


def _storage(config: Config) -> Iterator[str]:
    if config.pushes and find_spec("obstore") is None:
        yield f"storage.url = {config.storage.url!r}: object storage needs obstore; {how_to_install('obstore')}"


def _slurm(config: Config) -> Iterator[str]:
    if not config.workers.slurm:
        return
    if shutil.which("sbatch") is None:
        yield "workers.slurm: sbatch is not on the path; run where SLURM's commands are, or remove the key"
    wanted = config.generation.engine.tensor_parallel
    if isinstance(wanted, str):
        return
    for number, shape in enumerate(config.workers.slurm):
        if wanted > 1 and shape.gpus < wanted:
            yield f"workers.slurm.{number}.gres = {shape.gres!r}: generation.engine.tensor_parallel needs {wanted} GPUs"
