"""Checks of the model before any job: its files, its context, its quantisation, and what can be captured from it."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from emoprobe import __version__
from emoprobe.config.experiment import Config
from emoprobe.config.science.capture import RESID_POST, Capture
from emoprobe.config.science.model import Model
from emoprobe.config.section import is_local
from emoprobe.conversations import variants
from emoprobe.conversations.api import begun_answer
from emoprobe.conversations.kinds import longest_conversation
from emoprobe.conversations.lengths import completion_room
from emoprobe.conversations.rendering import PromptError, Renderer
from emoprobe.conversations.samples import DataError, draw
from emoprobe.conversations.sources import files
from emoprobe.conversations.variants import VariantError, opening_messages
from emoprobe.models import source as models
from emoprobe.models.directory import ModelError, check_directory
from emoprobe.models.hardware import BATCH_INVARIANT
from emoprobe.models.resolved import dtype_of
from emoprobe.models.server_hardware import ServerHardware
from emoprobe.models.settings import (
    context_length,
    downloaded,
    layer_count,
    quantisation,
    read_settings,
    why_not_batch_invariant,
    why_not_generated,
    why_not_loaded,
)
from emoprobe.models.tokens import count_tokens
from emoprobe.models.weights import shapes
from emoprobe.results.layout import MODELS
from emoprobe.workflow.heavy_checks import ask, unless_unanswered
from emoprobe.workflow.process import hardware
from emoprobe.workflow.prompt_checks import FEW_TOKENS, check_prompts, thinking_warnings
from emoprobe.workflow.remembered import remembered, version


def check_model(config: Config, cache: Path | None, converted: Path) -> Iterator[str]:
    """Yield what is wrong with the model of an experiment, one line a problem.

    Args:
        config: the experiment; relative paths are taken from the working directory.
        cache: folder in which the answers of slow checks are remembered.
        converted: folder with the embedded model, where it was converted already.
    """
    if config.generation.backend == "api":
        yield from _prefilled(config)
        return
    try:
        models.check_source(config.model.source)
        directory = directory_of(config.model, converted)
        if directory is not None and is_local(config.model.source):
            check_directory(directory)
    except ModelError as error:
        yield str(error)
        return
    described = directory or downloaded(config.model)
    if described is None:
        return
    settings = read_settings(described)
    yield from _context(config, described, settings, cache)
    yield from _quantised(config, described, settings)
    yield from batch_problems(config, settings)
    if directory is not None:
        yield from _prompts(config, cache, directory)
    if directory is not None and config.capture.enabled:
        slips = [*_layers(config.capture, directory), *_hook_points(config.capture, directory)]
        yield from slips
        if slips:
            return
    if config.model.source != models.EMBEDDED:
        yield from _captures(config, described, cache)


def _prefilled(config: Config) -> Iterator[str]:
    """Refuse variants that begin the answer: most APIs reply to such a message and do not continue it."""
    for name in config.variants:
        try:
            messages = opening_messages(config, name, "What is 2 + 3?", 0)
        except VariantError:
            continue  # named by the checks of variants, or by the run
        if (problem := begun_answer(name, messages)) is not None:
            yield problem


def _prompts(config: Config, cache: Path | None, directory: Path) -> Iterator[str]:
    """Check what the chat template makes of the messages; without a fast tokenizer, `prepare_model` checks it."""
    if not (directory / "tokenizer.json").is_file():
        return
    about: list[Any] = [
        *_tokenizer_files(directory),
        [config.prompt.content(), config.generation.chat_template, config.experiment.seed],
        [config.generation.described().get("thinking"), config.capture.enabled, config.capture.positions],
        {name: variants.identity(config, name) for name in config.variants},
        *_conversation(config),
    ]

    def problems() -> list[str]:
        try:
            return check_prompts(config, Renderer.load(directory))
        except PromptError as error:
            return [f"model.source = {config.model.source!r}: {error}"]

    yield from remembered(cache, about, problems)


def _conversation(config: Config) -> list[Any]:
    """Return what a check of prompts knows of further turns; nothing for single conversations."""
    return [] if config.conversation.kind == "single" else [config.conversation.content()]


def thinking_lines(config: Config, cache: Path | None, converted: Path = MODELS) -> list[str]:
    """Return why completions may end within a thought, one line each; none where the tokenizer is not here."""
    settings = config.generation
    if settings.backend == "api":
        return []
    directory = directory_of(config.model, converted) or downloaded(config.model)
    short = settings.max_tokens < FEW_TOKENS and settings.thinking_mode != "off"
    if not short or config.model.source == models.EMBEDDED or directory is None:
        return []
    if not (directory / "tokenizer.json").is_file():
        return []
    about: list[Any] = [
        "thinking", *_tokenizer_files(directory), settings.chat_template, settings.max_tokens,
        settings.described().get("thinking"), config.prompt.content(), config.model.source,
    ]  # fmt: skip

    def found() -> list[str]:
        try:
            return thinking_warnings(config, Renderer.load(directory))
        except PromptError:
            return []  # named by the checks of prompts

    return remembered(cache, about, found)


def _tokenizer_files(directory: Path) -> list[Any]:
    """Return what a check of prompts is about: the library, and the files of a model's tokenizer."""
    described = [path for path in sorted(directory.iterdir()) if path.suffix in (".json", ".jinja")]
    return [
        version("tokenizers"),
        [[str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns] for path in described],
    ]


def _context(config: Config, directory: Path, settings: dict[str, Any], cache: Path | None) -> Iterator[str]:
    """Check that prompts and completions fit into the context of the model and of vLLM."""
    context, generation = context_length(settings), config.generation
    limit, named = context, f"the model in {directory} takes"
    if generation.backend == "vllm":
        asked = generation.engine.max_model_len
        if isinstance(asked, str):
            asked = None  # what is needed, up to what the model takes
        started = not config.workers.endpoints and "VLLM_ALLOW_LONG_MAX_MODEL_LEN" not in os.environ
        if asked is not None and context is not None and asked > context and started:
            yield (
                f"generation.engine.max_model_len = {asked}: the model in {directory} takes {context} tokens at most; "
                f"set it to {context} or less, or to null, which is the model's"
            )
            return
        if asked is not None and (context is None or asked < context):
            limit, named = asked, "generation.engine.max_model_len allows"
    if limit is None:
        return
    if completion_room(config) >= limit:
        yield (
            f"generation.max_tokens = {generation.max_tokens}: {named} {limit} tokens, prompt and {_answers(config)} "
            "together; lower it to leave room for the prompt"
        )
        return
    yield from _longest_prompt(config, directory, limit, named, cache)


def _longest_prompt(config: Config, directory: Path, limit: int, named: str, cache: Path | None) -> Iterator[str]:
    """Check that the longest question with the longest text leaves room for all answers, as far as is known."""
    dataset, seed = config.dataset, config.experiment.seed
    paths = [Path(dataset.source).expanduser(), directory / "tokenizer.json"]
    if not files.is_file(dataset.source) or not all(path.is_file() for path in paths):
        return  # generated questions are short, and those of the hub are not here
    about: list[Any] = [
        [[str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns] for path in paths],
        [dataset.model_dump(mode="json"), config.prompt.model_dump(mode="json"), seed],
        [list(config.variants), config.generation.max_tokens, limit, __version__, *_conversation(config)],
    ]
    try:
        about.append([variants.identity(config, name) for name in config.variants])
    except VariantError:
        return  # named by the checks of variants

    def check() -> list[str]:
        try:
            longest = max((sample.question for sample in draw(dataset, seed)), key=len)
            conversations = [longest_conversation(config, name, longest, 0).messages for name in config.variants]
            texts = ["\n".join(message["content"] for message in messages) for messages in conversations]
            tokens = max(count_tokens(texts, directory))
        except (DataError, VariantError, ModelError):
            return []  # named by the checks of data, variants and tokenizer
        if tokens + completion_room(config) <= limit:
            return []
        return [
            f"generation.max_tokens = {config.generation.max_tokens}: the longest prompt has at least {tokens} tokens, "
            f"and {named} {limit}, prompt and {_answers(config)} together; lower it, or leave out long questions"
        ]

    yield from remembered(cache, about, check)


def _answers(config: Config) -> str:
    """Name the completions of a conversation."""
    turns = config.conversation.sure_answers
    return "completion" if turns == 1 else f"{turns} completions"


def _quantised(config: Config, directory: Path, settings: dict[str, Any]) -> Iterator[str]:
    """Check that servers started here can load quantised weights."""
    section = quantisation(settings)
    if section is None or config.deploy.backend is not None:
        return
    where, gpu = f"model.source: {directory}", hardware([config]) == "cuda"
    dtype = dtype_of(config, settings, ServerHardware("gpu" if gpu else "cpu"))
    reasons = []
    if "vllm" in config.server_kinds and not config.workers.endpoints:
        reasons.append(why_not_generated(section, dtype, gpu, _cpu_flags()))
    if "nnsight" in config.server_kinds and not config.workers.capture_endpoints:
        reasons.append(why_not_loaded(str(section["quant_method"]), gpu))
    for reason in filter(None, reasons):
        yield f"{where}: {reason}; or take the model as it was before it was quantised"


def batch_problems(config: Config, settings: dict[str, Any]) -> Iterator[str]:
    """Yield why vLLM cannot compute as `batch_invariant: true` asks for, one line; nothing where it can.

    Args:
        config: the experiment.
        settings: the content of the model's config.json.
    """
    if config.generation.engine.batch_invariant is not True or config.generation.backend != "vllm":
        return
    servers, reason = ServerHardware.of(config), why_not_batch_invariant(settings)
    if reason is None and servers.capability is not None and servers.capability < BATCH_INVARIANT:
        reason = f"vLLM's batch-invariant kernels need compute capability {BATCH_INVARIANT[0]}.{BATCH_INVARIANT[1]}"
    if reason is not None:
        yield f"generation.engine.batch_invariant = True: {reason}; set it to auto or false"


def _cpu_flags() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    return next((line.partition(":")[2] for line in text.splitlines() if line.startswith("flags")), "")


def _captures(config: Config, directory: Path, cache: Path | None) -> Iterator[str]:
    """Check that activations of the model can be captured, as the NNsight server does when it loads the model."""
    captures: list[tuple[str, dict[str, Any]]] = []
    # Only what the check reads, so that another change of the section does not ask again.
    if config.capture.enabled:
        captures.append(("capture.", config.capture.model_dump(mode="json", include={"layers", "hook_points"})))
    if config.features.enabled and config.features.layer is not None:
        wanted = Capture(layers=[config.features.layer], hook_points=[RESID_POST])
        captures.append(("features: ", wanted.model_dump(mode="json")))
    if not captures and config.generation.backend == "nnsight":
        captures.append(("capture.", Capture(hook_points=[RESID_POST]).model_dump(mode="json")))
    packages = [version(name) for name in ("torch", "transformers")]
    if not captures or None in packages:
        return
    settings = (directory / "config.json").read_text(encoding="utf-8")
    about = [captures, settings, str(directory.absolute()), packages, __version__]
    yield from unless_unanswered(cache, about, lambda: ask("capture", str(directory.absolute()), captures))


def directory_of(model: Model, converted: Path) -> Path | None:
    """Return the directory of a model that is on this machine's disk, outside the cache of the hub."""
    if is_local(model.source):
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
